"""The leaderboard of a sweep: all scores, the best first, the failed ones last."""

import pytest
from made_records import make_run

from unio4_lib.report.leaderboard import Entry, markdown, metrics


def test_scores_stand_in_order_with_the_clones_and_the_profile() -> None:
    entries = [
        Entry("d", 1, "m", failure="fit-critics: no data"),
        Entry("d", 2, "m", make_run(online=0.0)),
        Entry("d", 3, "m", make_run(online=150.0)),
    ]
    text = markdown(entries)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| d | ")][-3:]
    assert [row[1:3] for row in rows] == [["m", "3"], ["m", "2"], ["m", "1"]]
    assert rows[0][3].startswith("100.0 ± ")
    assert rows[0][5].startswith("150.0 ± ")
    assert rows[2][3] == "failed: fit-critics: no data"
    assert "| Dataset | Method | Seed | Clones | Offline | Online |" in text
    profile = "Of 2 runs, by last return over the clones' return: "
    assert f"{profile}50% above 0.5×, 50% above 0.75×, 50% above 1×, 50% above 1.25×." in text


def test_two_runs_have_the_wide_interval_that_two_runs_have() -> None:
    """75 ± 12.7 times 75: Student's t of one degree of freedom."""
    entries = [Entry("d", 2, "m", make_run(online=0.0)), Entry("d", 3, "m", make_run(online=150.0))]
    (row,) = [line for line in markdown(entries).splitlines() if line.startswith("| d | m | 2 | 75.0")]
    assert row.split(" | ")[4] == "-878.0 to 1028.0"
    found = metrics(entries)
    assert found["d/m/interval_high"] == pytest.approx(75 + 12.7062 * 75, rel=1e-4)
    assert "d/m/interval_low" not in metrics(entries[:1])
    assert "| 1 | 0.0 | – | 0.0 |" in markdown(entries[:1])
