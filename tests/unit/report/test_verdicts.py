"""What the numbers say in words, good or bad."""

import pytest
from made_records import checks, make_run

from unio4_lib.report.phases import change, dip, find_dip, lowest, normalization, phases
from unio4_lib.report.verdicts import headline


def say(**changed: object) -> str:
    return headline(make_run(**changed)).replace("\N{NO-BREAK SPACE}", " ")  # type: ignore[arg-type]


def level(what: str, **changed: object) -> str:
    (found,) = [check for check in checks(make_run(**changed)) if check.what == what]  # type: ignore[arg-type]
    return found.level


def test_a_good_run_reads_well() -> None:
    assert say() == (
        "The offline phase raised the return by 100%, from the plain clones' 100 ± 5 to 200 ± 5, 2.22 times "
        "the data's mean. Of that, steps behind the gate added 33% to its own start (150 ± 5). Fine-tuning "
        "dipped to 0.75 of the offline score at 30,000 steps, then rose to 1.50 times the offline score: "
        "300 ± 5."
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
    record = make_run(begun=offline, offline=offline)
    record.summary["gate"]["accepted"] = 0
    text = headline(record).replace("\N{NO-BREAK SPACE}", " ")
    assert "The gate let no change pass, so it is the policy that the judge chose to begin with." in text
    assert "steps behind the gate" not in text


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
    record.summary["scores"]["behavior"]["mean_return"] = -100.0
    text = headline(record)
    assert "raised the return by 50" in text
    assert "30 above it" in text
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
    assert found["offline"].interval == pytest.approx((200 - 9.8, 200 + 9.8))
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
    ranking = record.stages["report"].facts["ope"]
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
    record.summary["gate"]["trust"] = {
        "weighting": "return:0.5", "recorded": 200.0, "modeled": modeled, "trusted": trusted
    }  # fmt: skip
    (found,) = [check for check in checks(record) if check.what == "Models may judge"]
    assert found.level == expected
    assert "200" in found.why
    assert f"{modeled:.0f}" in found.why
    assert "return:0.5" in found.why
    assert ("nothing was accepted" in found.why) is not trusted
