"""What is said of the switch to online: by how many looks it is known, or nothing at all."""

import pytest
from made_records import early_looks, found, make_run, page_text, plain, render_report, scored

from unio4_lib.report.comparison import render_comparison
from unio4_lib.report.record import RunRecord


def seen(*looks: float, seed: int = 0) -> RunRecord:
    """A run with such early looks, after 200."""
    record = make_run(seed=seed)
    early_looks(record, *looks)
    return record


def below_zero(record: RunRecord) -> RunRecord:
    record.curve[0][1] = -1.0
    return record


@pytest.mark.parametrize(
    ("looks", "ratio", "known"),
    [
        ((150.0,), "0.75", "the one early look, which can miss a drop"),
        ((150.0, 100.0), "0.50", "its worst"),
        ((210.0, 220.0), "1.05", "its worst"),
    ],
)
def test_the_figure_of_the_switch_says_how_it_is_known(
    looks: tuple[float, ...], ratio: str, known: str
) -> None:
    lines = page_text(render_report(seen(*looks))).splitlines()
    assert [line for line in lines if line.startswith("The switch: ")] == [
        f"The switch: {ratio} of the score before the first step, at {known}"
    ]


def test_the_figure_of_a_switch_without_a_measure_claims_none() -> None:
    lines = page_text(render_report(below_zero(seen(-3.0, -2.0)))).splitlines()
    assert [line for line in lines if line.startswith("The switch: ")] == [
        "The switch: the first steps online"
    ]


SOON = "Soon after the switch the score was"
MISSED = "one look can miss a drop."


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (
            [(100.0,), (150.0,)],
            f"{SOON} 0.50 times the offline one in the worst run, 0.62 in the middle. Every run had one "
            f"early look, and {MISSED}",
        ),
        (
            [(100.0, 200.0), (150.0,)],
            f"{SOON} 0.50 times the offline one at worst, 0.62 in the middle. One early look was all in 1 "
            f"of the runs, and {MISSED}",
        ),
        (
            [(100.0, 200.0), (150.0, 200.0)],
            f"{SOON} 0.50 times the offline one at worst, 0.62 in the middle.",
        ),
    ],
)
def test_a_comparison_says_how_many_looks_it_has(runs: list[tuple[float, ...]], says: str) -> None:
    text = page_text(render_comparison([seen(*looks, seed=seed) for seed, looks in enumerate(runs)]))
    (line,) = [line for line in text.splitlines() if SOON in line]
    assert line.endswith(says)


def test_each_dip_of_a_comparison_says_how_many_looks_it_has() -> None:
    runs = [seen(100.0), seen(150.0, 160.0, seed=1), below_zero(seen(-2.0, seed=2))]
    text = page_text(render_comparison(runs))
    assert "0.50 (1)" in text and "0.75 (2)" in text and text.count("(1)") == 1
    assert "Dip: the worst early look, of so many." in text


def test_a_comparison_without_looks_says_nothing_of_the_switch() -> None:
    assert SOON not in page_text(render_comparison([make_run(curve=[], seed=seed) for seed in range(2)]))
    runs = [below_zero(seen(-2.0, seed=seed)) for seed in range(2)]
    assert SOON not in page_text(render_comparison(runs))


@pytest.mark.parametrize(
    ("looks", "level", "which", "end"),
    [
        ((190.0, 195.0), "good", "worst of 2 looks in the first tenth", ""),
        ((150.0, 199.0), "watch", "worst of 2 looks in the first tenth", ""),
        ((100.0, 199.0), "bad", "worst of 2 looks in the first tenth", ""),
        ((150.0,), "watch", "one early look", " One look can miss a drop."),  # it may lie after that tenth
    ],
)
def test_the_check_of_the_switch_has_the_looks_in_its_words(
    looks: tuple[float, ...], level: str, which: str, end: str
) -> None:
    check = found(seen(*looks), "No drop at the switch")
    assert check is not None and check.level == level
    assert plain(check.why) == (
        f"The {which} after the policy began to move was {min(looks):.0f}, "
        f"{min(looks) / 200:.2f} of the 200 before the first step.{end}"
    )


def test_a_start_below_zero_is_no_measure_of_a_drop() -> None:
    for before in (0.0, -50.0):
        record = seen(-80.0, -90.0)
        record.curve[0][1] = before
        scored(record, "offline", before)
        assert found(record, "No drop at the switch") is None
