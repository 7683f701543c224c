"""Sentences in the sections of a report and of a comparison: each on one side, on the other, and unsaid."""

from collections.abc import Callable

import pytest
from made_records import (
    fitted,
    gate_of,
    make_run,
    page_text,
    plain,
    refuse,
    render_report,
    scored,
    trust_of,
    trusted,
)

from unio4_lib.methods.unio4.improvement_section import (
    gate_rule,
    opinion_sentence,
    start_sentence,
    trust_sentence,
)
from unio4_lib.report.comparison import render_comparison
from unio4_lib.report.record import RunRecord

JUDGED = "The models judged 3 policies; the delivered one began as uniform."
CLONED = "What is delivered is a clone of kind uniform, as it was cloned."
MAY = "The models may judge: in the models, clones of kind uniform return 85, where the data recorded 90."
MAY_NOT = (
    "The models may not judge, so nothing was accepted: in the models, clones of kind uniform return 9, "
    "where the data recorded 90."
)


def line_with(record: RunRecord, *parts: str) -> list[str]:
    """Lines of the report that have one of these in them."""
    lines = page_text(render_report(record)).splitlines()
    return [line for line in lines if any(part in line for part in parts)]


def test_the_report_says_whether_models_may_judge() -> None:
    record = make_run()
    assert plain(trust_sentence(gate_of(record))) == MAY
    assert line_with(record, "may judge:", "may not judge") == [f"{MAY} {JUDGED}"]
    trusted(record, 9.0, word=False)
    assert plain(trust_sentence(gate_of(record))) == MAY_NOT
    assert line_with(record, "may judge:", "may not judge") == [f"{MAY_NOT} {CLONED}"]
    gate_of(record).trust = None  # nothing recorded can tell
    assert trust_sentence(gate_of(record)) == ""
    assert plain(start_sentence(gate_of(record))) == JUDGED
    assert line_with(record, "may judge:", "may not judge") == []


def test_a_gate_without_decisions_tells_of_trust_or_of_their_lack() -> None:
    record = make_run()
    record.decisions.clear()
    gate_of(record).started_from = []
    trusted(record, 9.0, word=False)
    assert line_with(record, "may not judge", "kept no decisions") == [MAY_NOT]
    gate_of(record).trust = None
    quiet = ["This run kept no decisions of its gate."]
    assert line_with(record, "may not judge", "kept no decisions") == quiet


@pytest.mark.parametrize(
    ("margin", "confidence", "rule"),
    [
        (0.0, 0.5, "A candidate passes when its estimate is higher."),
        (
            0.02,
            0.9,
            "A candidate passes when its gain is sure to 90%, at least 2% of the estimate, and not paid for "
            "by one way of acting.",
        ),
        (
            0.0,
            0.9,
            "A candidate passes when its gain is sure to 90%, at least 0% of the estimate, and not paid for "
            "by one way of acting.",
        ),
    ],
)
def test_what_a_candidate_had_to_show_is_said(margin: float, confidence: float, rule: str) -> None:
    record = make_run()
    gate_of(record).margin, gate_of(record).confidence = margin, confidence
    assert gate_rule(gate_of(record)) == rule
    (note,) = line_with(record, "A candidate passes when")
    assert f" {rule} " in note


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (["too small", "not sure", "not sure", None], "let 1 pass. Refused: 2 not sure, 1 too small."),
        (
            ["too small", "too small", "too small", "not sure"],
            "let 0 pass. Refused: 3 too small, 1 not sure.",
        ),
        ([None, None, None, None], "let 4 pass."),
    ],
)
def test_refusals_are_counted_by_their_reasons(reasons: list[str | None], said: str) -> None:
    record = make_run()
    refuse(record, reasons)
    assert line_with(record, "The gate looked at") == [f"The gate looked at 4 candidates and {said}"]


@pytest.mark.parametrize(("agrees", "side"), [(True, "no worse than"), (False, "worse than")])
@pytest.mark.parametrize("ranked", [True, False])
def test_the_second_opinion_of_the_choice_is_said(agrees: bool, side: str, ranked: bool) -> None:
    record = make_run()
    fitted(record, 0.5, agrees=agrees, policies=3)
    fqe = gate_of(record).fqe
    assert fqe is not None
    fqe.first, fqe.spreads = 1, [0.1] * 3
    if not ranked:
        fqe.rank_correlation = None
    ranks = ", and its ranks correlate by 0.50 with the models'" if ranked else ""
    said = (
        f"Fitted Q evaluation, which decides nothing, puts one of kind return:0.5 first{ranks}; to it the "
        f"models' choice is {side} a plain clone."
    )
    assert opinion_sentence(gate_of(record)) == said
    assert line_with(record, "Fitted Q evaluation") == [f"{MAY} {JUDGED} {said}"]


@pytest.mark.parametrize(("spreads", "cell"), [([0.5] * 3, "2 ± 0.50"), ([], "2")])
def test_a_second_opinion_without_spreads_has_none_in_its_table(spreads: list[float], cell: str) -> None:
    record = make_run()
    fitted(record, 0.5, policies=3)
    fqe = gate_of(record).fqe
    assert fqe is not None
    fqe.spreads = spreads
    row = page_text(render_report(record)).split("advantage:1 (2)")[1].split("track")[0]
    assert row.split("\n")[-3].strip() == cell


def test_without_a_second_opinion_none_is_said() -> None:
    record = make_run()
    assert opinion_sentence(gate_of(record)) == ""
    assert line_with(record, "Fitted Q") == []


def compared(*runs: tuple[float, float]) -> str:
    """The page of runs with such offline and online returns; the clones are at 100."""
    made = [make_run(seed=n, offline=pair[0], online=pair[1], curve=[]) for n, pair in enumerate(runs)]
    return page_text(render_comparison(made))


@pytest.mark.parametrize(
    ("runs", "offline", "online"),
    [
        (((200.0, 300.0), (200.0, 300.0), (60.0, 61.0)), (2, 0, 1), (2, 1, 0)),
        (((103.0, 50.0), (101.0, 40.0), (99.0, 99.0)), (0, 3, 0), (0, 1, 2)),
        (((60.0, 20.0), (50.0, 90.0)), (0, 0, 2), (1, 0, 1)),
    ],
)
def test_a_comparison_counts_what_helped_and_what_hurt(
    runs: tuple[tuple[float, float], ...], offline: tuple[int, int, int], online: tuple[int, int, int]
) -> None:
    text = compared(*runs)
    for name, (up, same, down) in (("Offline improvement", offline), ("Fine-tuning", online)):
        counts = f"helped in {up}, changed nothing in {same} and hurt in {down} of the runs."
        assert f"{name} {counts}" in text


def test_a_comparison_counts_nothing_where_there_is_nothing_to_compare() -> None:
    runs = [make_run(seed=seed) for seed in range(2)]
    for run in runs:
        del run.summary.scores["behavior"], run.summary.scores["online"]
    text = page_text(render_comparison(runs))
    assert "Offline improvement helped" not in text and "Fine-tuning helped" not in text
    scored(runs[0], "offline", 90.0)
    assert "of the runs." not in page_text(render_comparison(runs))


Told = Callable[[RunRecord], object]


def critics(**changed: object) -> Told:
    return lambda record: record.stages["fit-critics"].told.update(changed)


def models(**changed: object) -> Told:
    return lambda record: record.stages["fit-dynamics"].told.update(changed)


def still(*errors: float, mine: tuple[float, ...] = (0.1, 0.25)) -> Told:
    """Errors of the guess that nothing changes, beside those of the models."""
    steps = list(range(1, len(errors) + 1))
    return models(k_step={"starts": 32, "steps": steps, "members": [list(mine)], "no_change": list(errors)})


ON_AVERAGE = "the returns that followed on average; correlation 0.87"
PROMISED = "errors than promised lie within their intervals"


@pytest.mark.parametrize(
    ("told", "title"),
    [
        (critics(bias=1.25), f"Values lie 1.25 above {ON_AVERAGE}"),
        (critics(bias=-1.25), f"Values lie 1.25 below {ON_AVERAGE}"),
        (critics(bias=0.0), f"Values lie at {ON_AVERAGE}"),
        (critics(bins=[]), None),
    ],
)
def test_critics_are_said_to_lie_above_or_below(told: Told, title: str | None) -> None:
    record = make_run()
    told(record)
    assert line_with(record, "Values lie") == ([] if title is None else [title])


@pytest.mark.parametrize(
    ("told", "title"),
    [
        (models(calibration=[[0.5, 0.54], [0.9, 0.87]]), "The models know their own error"),
        (models(calibration=[[0.5, 0.54], [0.9, 0.7]]), f"The models are too sure: fewer {PROMISED}"),
        (models(calibration=[[0.5, 0.7], [0.9, 0.8]]), f"The models are too modest: more {PROMISED}"),
        (models(calibration=[]), None),
    ],
)
def test_models_are_said_to_know_their_error_or_which_way_not(told: Told, title: str | None) -> None:
    record = make_run()
    told(record)
    assert line_with(record, "The models know", "The models are") == ([] if title is None else [title])


@pytest.mark.parametrize(
    ("told", "title"),
    [
        (still(0.4, 0.8), "0.250 standard deviations"),
        (still(0.4, 0.2), "0.250 standard deviations; from step 2 on, {guess}"),
        (still(0.05, 0.2), "0.250 standard deviations; from step 1 on, {guess}"),
        (still(0.05, 0.8), "0.250 standard deviations"),  # beaten at first, and then no more
        (
            still(0.05, 0.8, 0.3, 0.3, mine=(0.1, 0.25, 0.4, 0.5)),
            "0.500 standard deviations; from step 3 on, {guess}",
        ),
        (models(k_step=None), None),
    ],
)
def test_models_are_said_to_be_beaten_from_where_they_stay_so(told: Told, title: str | None) -> None:
    record = make_run()
    told(record)
    steps = len(record.stages["fit-dynamics"].told["k_step"]["steps"]) if title is not None else 0
    heads = line_with(record, "on their own the models are off by")
    guess = "no change would be the better guess"
    said = "" if title is None else title.format(guess=guess)
    start = f"After {steps} steps on their own the models are off by "
    assert heads == ([] if title is None else [start + said])


@pytest.mark.parametrize(
    ("told", "quiet"),
    [
        (critics(bins=[]), "This run recorded no calibration of its critics."),
        (models(calibration=[]), "This run recorded no errors of its models over many steps."),
    ],
)
def test_what_was_not_recorded_of_critics_and_models_is_said_so(told: Told, quiet: str) -> None:
    record = make_run()
    assert line_with(record, quiet) == []
    told(record)
    assert line_with(record, quiet) == [quiet]


def test_trust_of_other_clones_is_told_with_their_kind() -> None:
    record = make_run()
    trust_of(record).weighting = "return:0.5"
    assert "clones of kind return:0.5 return 85" in trust_sentence(gate_of(record))
