"""The sentences on top of a report: where each is said, where its contrary is, and where nothing is."""

import pytest
from made_records import early_looks, found, make_run, page_text, plain, render_report, scored

from unio4_lib.report.record import RunRecord
from unio4_lib.report.verdicts import headline, offline_sentence, online_sentence

RAISED = "The offline phase raised the return by 100%, from the plain clones' 100 ± 5 to 200 ± 5"


def of_data(record: RunRecord, mean: float | None) -> RunRecord:
    """A run whose data returned so much on average."""
    record.summary.dataset.mean_return = mean
    record.summary.dataset.normalized = None
    return record


def test_without_an_offline_policy_nothing_is_said_of_it() -> None:
    record = make_run()
    del record.summary.scores["offline"]
    assert offline_sentence(record) == ""
    assert online_sentence(record) == ""  # it is held against the offline one
    assert headline(record) == ""


def test_without_fine_tuning_nothing_is_said_of_it() -> None:
    record = make_run(curve=[])
    del record.summary.scores["online"]
    assert online_sentence(record) == ""
    assert headline(record) == offline_sentence(record) != ""


@pytest.mark.parametrize(
    ("mean", "says"),
    [
        (90.0, f"{RAISED}, 2.22 times the data's mean. Of that"),
        (0.0, f"{RAISED}. Of that"),
        (-90.0, f"{RAISED}. Of that"),
        (None, f"{RAISED}. Of that"),
    ],
)
def test_the_datas_mean_is_a_measure_only_where_it_is_positive(mean: float | None, says: str) -> None:
    assert plain(offline_sentence(of_data(make_run(), mean))).startswith(says)


def test_clones_are_held_against_no_data_that_told_no_mean() -> None:
    record = of_data(make_run(), None)
    assert found(record, "Clones reach the data") is None
    page = page_text(render_report(record))
    assert RAISED in page
    assert "\ndata 0\n" not in page  # no line at a mean that nobody knows
    assert found(of_data(record, 90.0), "Clones reach the data") is not None
    assert "\ndata 90\n" in page_text(render_report(record))


def test_the_own_start_is_spoken_of_where_it_and_its_gate_are_known() -> None:
    whole, startless, gateless = make_run(), make_run(), make_run()
    del startless.summary.scores["start"]
    gateless.summary.gate = None
    said = f"{RAISED}, 2.22 times the data's mean."
    assert plain(offline_sentence(whole)) == (
        f"{said} Of that, steps behind the gate added 33% to its own start (150 ± 5)."
    )
    assert plain(offline_sentence(startless)) == said
    assert plain(offline_sentence(gateless)) == said


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        ((210.0, 220.0), "started without a dip (1.05 of {before} at 20,000 steps), then"),
        ((220.0, 200.0), "started without a dip (1.00 of {before} at 20,001 steps), then"),
        ((190.0, 200.0), "hardly dipped (0.95 of {before} at 20,000 steps), then"),
        ((200.0, 100.0, 150.0), "dipped to 0.50 of {before} at 20,001 steps, then"),
        ((100.0,), "dipped to 0.50 of {before} at 20,000 steps, the one early look, then"),
    ],
)
def test_the_dip_is_called_as_deep_as_it_is(looks: tuple[float, ...], says: str) -> None:
    record = make_run()
    early_looks(record, *looks)
    said = says.format(before="the score before the first step")
    expected = f"Fine-tuning {said} rose to 1.50 times the offline score: 300 ± 5."
    assert plain(online_sentence(record)) == expected


def test_without_an_early_look_no_dip_is_said() -> None:
    said = plain(online_sentence(make_run(curve=[])))
    assert said == "Fine-tuning rose to 1.50 times the offline score: 300 ± 5."


@pytest.mark.parametrize(
    ("online", "says"),
    [
        (-20.0, "Fine-tuning rose to 30 above the offline score: -20 ± 5.0."),
        (-49.0, "Fine-tuning ended where it began: -49 ± 5.0, 1 above the offline score."),
        (-50.0, "Fine-tuning ended where it began: -50 ± 5.0."),
        (-80.0, "Fine-tuning ended 30 below the offline score: -80 ± 5.0. It made the policy worse."),
    ],
)
def test_below_zero_changes_online_are_told_without_ratios(online: float, says: str) -> None:
    """Of a negative score nobody can lose a half, so no loss there is called one of everything."""
    record = make_run(offline=-50.0, online=online, curve=[[0, -50.0, 4.0], [20_000, -55.0, 4.0]])
    assert plain(online_sentence(record)) == says


@pytest.mark.parametrize(
    ("online", "says"),
    [
        (99.0, "0.49 times the offline score: 99 ± 5.0. Fine-tuning lost what offline learning had."),
        (101.0, "0.51 times the offline score: 101 ± 5. Fine-tuning lost a part of it."),
        (-9.0, "-0.04 times the offline score: -9 ± 5.00. Fine-tuning lost what offline learning had."),
    ],
)
def test_more_than_half_of_a_positive_score_is_all_that_it_had(online: float, says: str) -> None:
    record = make_run(curve=[])
    scored(record, "online", online)
    assert plain(online_sentence(record)).endswith(says)
