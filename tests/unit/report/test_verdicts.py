"""What the numbers say in words, good or bad."""

from collections.abc import Callable

import pytest
from made_records import (
    checks,
    early_looks,
    fitted,
    found,
    gate_of,
    logged,
    make_run,
    scored,
    trust_of,
    trusted,
    without,
)

from unio4_lib.methods.unio4.improvement_section import choice_rule
from unio4_lib.report.phases import change, dip, find_dip, lowest, normalization, phases
from unio4_lib.report.record import RunRecord
from unio4_lib.report.summary import TrustSummary
from unio4_lib.report.verdicts import headline


def refuse_all(record: RunRecord, track: int) -> None:
    """No candidate of a track passed the gate."""
    for entry in record.decisions:
        if entry.member == track and entry.accepted:
            entry.accepted, entry.refusal = False, "too small"


def say(**changed: object) -> str:
    return headline(make_run(**changed)).replace("\N{NO-BREAK SPACE}", " ")  # type: ignore[arg-type]


def level(what: str, **changed: object) -> str:
    (found,) = [check for check in checks(make_run(**changed)) if check.what == what]  # type: ignore[arg-type]
    return found.level


def test_a_good_run_reads_well() -> None:
    assert say() == (
        "The offline phase raised the return by 100%, from the plain clones' 100 ± 5 to 200 ± 5, 2.22 times "
        "the data's mean. Of that, steps behind the gate added 33% to its own start (150 ± 5). Fine-tuning "
        "dipped to 0.75 of the score before the first step at 30,000 steps, the one early look, then rose to "
        "1.50 times the offline score: 300 ± 5."
    )


def test_bad_news_is_said() -> None:
    text = say(offline=60.0, online=20.0)
    assert "lowered the return by 40%" in text
    assert "the gate let a worse policy pass" in text
    assert "ended at 0.33 times the offline score" in text
    assert "lost what offline learning had" in text
    assert level("Gate kept its word", offline=60.0) == "bad"
    assert level("Fine-tuning helped", online=20.0) == "bad"


def test_a_difference_within_its_error_is_none() -> None:
    text = say(offline=103.0, online=104.0)
    assert "left the return where the plain clones stand" in text
    assert "ended where it began" in text
    assert level("Gate kept its word", begun=100.0, offline=103.0) == "watch"


@pytest.mark.parametrize("offline", [60.0, 200.0])
def test_a_gate_that_let_nothing_pass_has_improved_nothing(offline: float) -> None:
    """Of the delivered track, that is: what passed on another one is no merit of this policy."""
    record = make_run(begun=offline, offline=offline)
    refuse_all(record, track=1)
    assert gate_of(record).accepted > 0
    text = headline(record).replace("\N{NO-BREAK SPACE}", " ")
    assert "The gate let no change of it pass, so it is the policy that the judge chose to begin" in text
    assert "teps behind the gate" not in text
    assert found(record, "Gate kept its word") is None


def test_a_clone_that_models_were_not_trusted_to_choose_was_not_chosen_by_them() -> None:
    record = make_run()
    trust_of(record).trusted = False
    assert "The models were not trusted, so it is a clone as it was cloned." in headline(record)
    assert "the judge chose" not in headline(record)


def test_steps_can_gain_where_the_offline_phase_did_not() -> None:
    text = say(begun=60.0, offline=103.0)
    assert "left the return where the plain clones stand" in text
    assert ". Steps behind the gate added 72% to its own start (60 ± 5.0)." in text


def test_policies_are_compared_as_they_act() -> None:
    """A policy that is delivered with sampled actions is held against its start with sampled actions."""
    record = make_run(begun=190.0, offline=150.0)
    for name, acts in (("start", "mean"), ("offline", "sampled")):
        record.summary.scores[name].acts = acts
    assert "added 95% to its own start (77 ± 5.0)" in headline(record).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("online", "says"), [(20.0, "lost what offline learning had"), (150.0, "lost a part")]
)
def test_a_loss_is_called_as_large_as_it_is(online: float, says: str) -> None:
    assert says in say(online=online)


@pytest.mark.parametrize(
    ("begun", "says"),
    [
        (100.0, "Of that, steps behind the gate added 50% to its own start (100 ± 5)."),
        (148.0, "It is level with its own start (148 ± 5)."),
        (190.0, "It is worse than its own start (190 ± 5): the gate let a worse policy pass."),
    ],
)
def test_improvement_is_held_against_its_own_start(begun: float, says: str) -> None:
    """A policy above the plain clones may owe it to the choice of its start, and have lost since."""
    assert says in say(begun=begun, offline=150.0)


def test_negative_returns_are_told_without_ratios() -> None:
    record = make_run(offline=-50.0, online=-20.0)
    record.summary.scores["behavior"].mean_return = -100.0
    text = headline(record)
    assert "raised the return by 50" in text
    assert "30 above the offline score" in text
    assert "%" not in text


def test_the_dip_waits_until_the_policy_moves() -> None:
    # While only V learns the policy stands still: that look says nothing about the switch.
    curve = [[0, 100.0, 1.0], [16384, 100.0, 1.0], [20480, 57.0, 1.0], [90000, 40.0, 1.0]]
    found = find_dip(curve, 120_000, 16_384)
    assert found is not None
    assert (found.steps, found.ratio) == (20480, 0.57)
    assert find_dip(curve[:2], 120_000, 16_384) is None
    assert find_dip([[0, -5.0, 1.0], [9, -9.0, 1.0]], 100, 0).ratio is None  # type: ignore[union-attr]


def test_a_later_low_is_said() -> None:
    curve = [[0, 200.0, 1.0], [30000, 190.0, 1.0], [200000, 60.0, 1.0], [300000, 300.0, 1.0]]
    record = make_run(curve=curve)
    assert dip(record).ratio == 0.95  # type: ignore[union-attr]
    assert lowest(record).steps == 200000  # type: ignore[union-attr]
    assert headline(record).endswith("On the way it stood at 0.30 at 200,000 steps.")


def test_changes_and_scales() -> None:
    found = phases(make_run())
    assert list(found) == ["data", "clones", "offline", "online"]
    assert change(found["clones"], found["offline"]).ratio == 2.0
    assert found["offline"].interval == pytest.approx((200 - 10.05, 200 + 10.05), abs=0.01)  # t of 49 degrees
    zero, hundred = normalization(make_run())  # type: ignore[misc]
    assert (zero, hundred) == pytest.approx((0.0, 1000.0))


def test_every_check_has_a_number_and_missing_ones_are_left_out() -> None:
    found = checks(make_run())
    assert len(found) >= 7
    assert all(any(letter.isdigit() for letter in check.why) for check in found)
    bare = make_run(with_facts=False)
    assert {check.what for check in checks(bare)} < {check.what for check in found}


def test_few_policies_cannot_condemn_a_ranking() -> None:
    record = make_run()
    fitted(record, -0.5, policies=4)
    assert [c.level for c in checks(record) if c.what == "Estimates agree"] == ["watch"]
    ranking = record.stages["report"].told["ope"]
    ranking["rank_correlation"] = -0.5
    assert [c.level for c in checks(record) if c.what == "Estimates rank policies"] == ["bad"]
    ranking["points"] = ranking["points"][:4]
    assert [c.level for c in checks(record) if c.what == "Estimates rank policies"] == ["watch"]


@pytest.mark.parametrize(
    ("modeled", "trusted", "expected"),
    [(198.0, True, "good"), (260.0, True, "watch"), (40.0, False, "bad")],
)
def test_models_are_held_against_what_the_data_returned(modeled: float, trusted: bool, expected: str) -> None:
    record = make_run()
    gate_of(record).trust = TrustSummary(
        weighting="return:0.5", recorded=200.0, modeled=modeled, trusted=trusted
    )
    (found,) = [check for check in checks(record) if check.what == "Models may judge"]
    assert found.level == expected
    assert "200" in found.why
    assert f"{modeled:.0f}" in found.why
    assert "return:0.5" in found.why
    assert ("nothing was accepted" in found.why) is not trusted


def episodes(record: RunRecord, count: int | None) -> None:
    record.summary.dataset.episodes = count


def model_error(record: RunRecord, value: float) -> None:
    logged(record, "fit-dynamics", "dynamics/holdout_squared_error/0", value)
    logged(record, "fit-dynamics", "dynamics/holdout_squared_error/1", value)


def clones_at(record: RunRecord, mean: float) -> None:
    record.summary.scores["behavior"].mean_return = mean


Change = Callable[[RunRecord], object]
CASES: dict[str, dict[str | None, Change]] = {
    "Enough data": {
        "good": lambda r: None,
        "watch": lambda r: episodes(r, 20),
        "bad": lambda r: episodes(r, 5),
        None: lambda r: episodes(r, None),
    },
    "Clones reach the data": {
        "good": lambda r: None,
        "watch": lambda r: clones_at(r, 70.0),
        "bad": lambda r: clones_at(r, 30.0),
        None: lambda r: r.summary.scores.pop("behavior"),
    },
    "Critics follow returns": {
        "good": lambda r: None,
        "watch": lambda r: r.stages["fit-critics"].told.update(correlation=0.6),
        "bad": lambda r: r.stages["fit-critics"].told.update(correlation=-0.2),
        None: lambda r: without(r, "fit-critics"),
    },
    "Models predict a step": {
        "good": lambda r: model_error(r, 0.01),
        "watch": lambda r: model_error(r, 0.1),
        "bad": lambda r: model_error(r, 0.5),
        None: lambda r: without(r, "fit-dynamics"),
    },
    "Models know their error": {
        "good": lambda r: logged(r, "fit-dynamics", "dynamics/within_one_std", 0.68),
        "watch": lambda r: logged(r, "fit-dynamics", "dynamics/within_one_std", 0.5),
        "bad": lambda r: logged(r, "fit-dynamics", "dynamics/within_one_std", 0.2),
        None: lambda r: without(r, "fit-dynamics"),
    },
    "Models may judge": {
        "good": lambda r: None,
        "watch": lambda r: trusted(r, 60.0),
        "bad": lambda r: trusted(r, 9.0, word=False),
        None: lambda r: setattr(gate_of(r), "trust", None),
    },
    "Estimates agree": {
        "good": lambda r: fitted(r, 0.9),
        "watch": lambda r: fitted(r, 0.9, agrees=False),
        "bad": lambda r: fitted(r, 0.1),
        None: lambda r: None,
    },
    "Gate kept its word": {
        "good": lambda r: None,
        "watch": lambda r: scored(r, "start", 198.0),
        "bad": lambda r: scored(r, "start", 290.0),
        None: lambda r: refuse_all(r, track=1),
    },
    "Estimates rank policies": {
        "good": lambda r: None,
        "watch": lambda r: r.stages["report"].told["ope"].update(rank_correlation=0.4),
        "bad": lambda r: r.stages["report"].told["ope"].update(rank_correlation=0.0),
        None: lambda r: r.stages["report"].told["ope"].update(rank_correlation=None),
    },
    "No drop at the switch": {
        "good": lambda r: early_looks(r, 199.0, 196.0),
        "watch": lambda r: early_looks(r, 199.0),  # one look, however good, can miss a drop
        "bad": lambda r: early_looks(r, 199.0, 100.0),
        None: lambda r: r.curve.clear(),
    },
    "Fine-tuning helped": {
        "good": lambda r: None,
        "watch": lambda r: scored(r, "online", 203.0),
        "bad": lambda r: scored(r, "online", 150.0),
        None: lambda r: r.summary.scores.pop("online"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "expected"), [(what, expected) for what, cases in CASES.items() for expected in cases]
)
def test_every_check_can_say_yes_perhaps_no_and_nothing(what: str, expected: str | None) -> None:
    record = make_run()
    CASES[what][expected](record)
    check = found(record, what)
    assert (None if check is None else check.level) == expected


def test_the_table_of_cases_knows_every_check() -> None:
    record = make_run()
    for cases in CASES.values():
        cases["good"](record)
    assert [check.what for check in checks(record)] == list(CASES)


@pytest.mark.parametrize(
    ("offline", "says"),
    [
        (180.0, "Offline learning came to 180 ± 5, 2.00 times the data's mean of 90."),
        (
            45.0,
            "Offline learning came to 45 ± 5.0, 0.50 times the data's mean of 90: less than was there "
            "already.",
        ),
    ],
)
def test_a_method_without_clones_is_held_against_the_data(offline: float, says: str) -> None:
    record = make_run(offline=offline)
    for name in ("behavior", "start"):
        del record.summary.scores[name]
    record.summary.gate = None
    assert headline(record).replace("\N{NO-BREAK SPACE}", " ").startswith(says)
    record.summary.dataset.mean_return = None
    assert headline(record).startswith("Offline learning came to ") and "data" not in headline(record)


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.5, "50% of its gain over its own start counts and a later track has to lead by 2%."),
        (1.0, "Delivered is the track with the highest estimate."),
        (None, "Delivered is the track with the highest estimate."),  # from before the setting
    ],
)
def test_how_the_delivered_track_was_chosen_is_said(share: float | None, says: str) -> None:
    record = make_run()
    record.config["improve"].pop("believed_gain")
    if share is not None:
        record.config["improve"]["believed_gain"] = share
    gate = gate_of(record)
    assert choice_rule(record, gate.model_copy(update={"started_from": [3, 1]})).endswith(says)
    assert choice_rule(record, gate.model_copy(update={"started_from": [3]})) == ""
