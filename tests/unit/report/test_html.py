"""The page as text: whole, closed, harmless, and with the record's own numbers."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_records import HOSTILE, make_run, render_report, write_report

from unio4_lib.report.comparison import middle_curve, render_comparison
from unio4_lib.report.markup import VOID
from unio4_lib.report.record import RunRecord
from unio4_lib.report.summary import Data, Place, Summary
from unio4_lib.runs.folder import TASKS

ALLOWED_SCHEMES = ("#", "data:")


class Page(HTMLParser):
    """Elements, text and addresses of a page; elements that are not closed in order are an error."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0
        self.text = ""
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("href", "src", "action", "data", "poster", "srcset", "xlink:href"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")


def bare_run() -> RunRecord:
    """What the least that a summary can say leaves of a run."""
    summary = Summary(stages={}, scores={}, dataset=Data(mean_return=None))
    return RunRecord(summary, {}, {}, [], [])


RECORDS = {
    "whole": make_run(),
    "without facts": make_run(with_facts=False),
    "without a curve": make_run(curve=[]),
    "a curve of one point": make_run(curve=[[0, 200.0, 1.0]]),
    "negative": make_run(offline=-200.0, online=-300.0),
    "flat": make_run(offline=100.0, online=100.0, curve=[[0, 100.0, 0.0], [100, 100.0, 0.0]]),
    "bare": bare_run(),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_record_becomes_a_closed_page(record: RunRecord) -> None:
    page = Page(render_report(record))
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    assert len(page.ids) == len(set(page.ids))
    assert page.scripts == 1
    assert page.handlers == []
    for address in page.addresses:
        assert address.startswith(ALLOWED_SCHEMES), address
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_no_address_of_the_network_stands_anywhere(record: RunRecord) -> None:
    source = render_report(record)
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", source) == []
    assert "@import" not in source
    assert "url(" not in source
    assert "default-src 'none'" in html.unescape(source)


def test_the_numbers_of_the_record_are_there() -> None:
    text = Page(render_report(make_run())).text
    for number in ("7,000", "70 episodes", "100 ± 5", "200", "300 ± 5", "0.75", "9.8.7", "c0ffee", "d5"):
        assert number in text, number
    assert "correlation 0.87" in text
    assert "rank correlation 0.93" in text
    assert "80% of them the task itself ended" in text
    assert "2 of 4" not in text
    assert "The gate looked at 4 candidates and let 1 pass" in text


def test_what_is_missing_is_one_quiet_sentence() -> None:
    text = Page(render_report(make_run(with_facts=False, curve=[]))).text
    assert "This run recorded no details of its data." in text
    assert "This run has no online learning curve." in text


def test_a_hostile_name_stays_text() -> None:
    source = render_report(make_run(env_id="<img src=x onerror=alert(1)>"))
    page = Page(source)
    assert page.scripts == 1
    assert "<script>alert" not in source
    assert "<img" not in source
    assert HOSTILE in page.text
    assert "<img src=x onerror=alert(1)>" in page.text


def test_the_footer_names_the_places_and_leaves_out_what_is_not_known() -> None:
    record = make_run()
    known = {"folder": "/my runs/x", "artifact_root": "s3://b/unio4", "tracking": "mlflow at home"}
    known |= {"logs": None, "host": "box", "cpu": "Z80, 1 cores"}
    record.summary.place = Place.model_validate(known)
    text = Page(render_report(record)).text
    for word in (
        "s3://b/unio4",
        "mlflow at home",
        "box",
        "Z80",
        "unio4 evaluate '/my runs/x' --episodes 100",
    ):
        assert word in text
    assert "logs of tasks" not in text
    assert "artifact root" not in Page(render_report(make_run())).text


def test_a_film_is_part_of_the_page(tmp_path: Path) -> None:
    write_report(make_run(), tmp_path / "r.html", b"GIF89a...")
    page = Page((tmp_path / "r.html").read_text())
    assert [a for a in page.addresses if a.startswith("data:image/gif;base64,R0lGODlhLi4u")]


def test_many_dimensions_and_members_do_not_grow_the_page_without_bound() -> None:
    record = make_run()
    facts = record.stages["prepare-dataset"].told
    facts["actions"] = facts["actions"] * 100
    facts["observations"] = facts["observations"] * 200
    page = Page(render_report(record))
    assert "The first 24 of 200 dimensions" in page.text
    assert "The 24 widest of 600 dimensions" in page.text


def test_a_comparison_tells_runs_apart() -> None:
    runs = [make_run(seed=seed, online=300.0 + 10 * seed) for seed in range(3)]
    page = Page(render_comparison(runs))
    assert "3 runs of Test-v0" in page.text
    for seed in range(3):
        assert f"seed {seed}" in page.text
    assert "Offline improvement helped in 3" in page.text
    assert "normalized score" in page.text
    assert "seed" in page.text
    assert HOSTILE in page.text or "All runs had the same" in page.text or "set differently" in page.text


def test_a_comparison_of_tasks_without_references_uses_returns() -> None:
    runs = [make_run(seed=seed, env_id=f"T{seed}-v0") for seed in range(2)]
    runs[0].summary.scores["online"].normalized = None
    text = Page(render_comparison(runs)).text
    assert "normalized score" not in text
    assert "T0-v0 and T1-v0" in text


def test_a_comparison_of_one_run_a_task_claims_no_interval() -> None:
    runs = [make_run(seed=1, dataset=f"transitions:log-{task}") for task in range(2)]
    text = Page(render_comparison(runs)).text
    assert not re.search(r"\d to \d", text)
    several = [
        make_run(seed=seed, dataset=f"transitions:log-{task}") for task in range(2) for seed in range(2)
    ]
    text = Page(render_comparison(several)).text
    assert len(re.findall(r"[\d.]+ to [\d.]+normalized score", text)) >= 4
    assert "below that from the lowest run to the highest" in text
    assert "transitions:log-1, seed 1" in text


def test_a_comparison_puts_no_two_datasets_together() -> None:
    """Also of one environment: 300 and 900 have no middle that means anything."""
    runs = [
        make_run(seed=seed, dataset=name, online=online)
        for name, online in (("transitions:good", 900.0), ("transitions:poor", 300.0))
        for seed in range(3)
    ]
    text = Page(render_comparison(runs)).text
    assert "transitions:good, 3 runs" in text
    assert "Online90" in text and "Online30" in text
    assert "Online60" not in text


def test_a_comparison_shows_what_improvement_added_to_its_own_start() -> None:
    text = Page(render_comparison([make_run(seed=seed, begun=160.0) for seed in range(2)])).text
    assert "Offline / its start" in text
    assert "1.25" in text  # of 160, 200 became; of the clones' 100 it is twice as much


def test_long_names_leave_room_for_the_curves() -> None:
    runs = [make_run() for _ in range(2)]
    for index, run in enumerate(runs):
        run.summary.seed = 10**19 + index
    charts = [
        svg for svg in re.findall(r"<svg.*?</svg>", render_comparison(runs), re.DOTALL) if "switch" in svg
    ]
    drawn = {
        svg.split('viewBox="0 0 ')[1].split()[0]: re.sub(r"<title>.*?</title>", "", svg) for svg in charts
    }
    assert "seed 10000000000000000001" in drawn["940"]
    assert "seed 10000000000000000001" not in drawn["340"]
    assert max(map(float, re.findall(r'cx="([\d.]+)"', drawn["340"]))) > 280


def test_runs_of_one_dataset_and_seed_are_numbered() -> None:
    runs = [make_run(seed=4), make_run(seed=4), make_run(seed=5)]
    for index, run in enumerate(runs):
        run.summary.run_id = f"20260101-00000{index}"
    text = Page(render_comparison(runs)).text
    assert "seed 4 #1" in text and "seed 4 #2" in text and "seed 5 #" not in text
    assert "20260101-000001" in text


def test_observations_reach_as_far_as_any_of_them() -> None:
    """The widest one may be the better centered."""
    record = make_run()
    wide, skewed = {"min": -6.0, "max": 6.0}, {"min": -1.0, "max": 9.0}
    rows = [{**ends, "mean": 0.0, "std": 1.0} for ends in (wide, skewed)]
    record.stages["prepare-dataset"].told["observations"] = rows
    assert "Observations reach up to 9 standard deviations" in Page(render_report(record)).text


def test_episodes_that_were_cut_are_not_said_to_have_run_out_of_time() -> None:
    text = Page(render_report(make_run())).text
    assert "14 were cut, by a time limit or the end of the recording" in text
    assert "ran out of time" not in text


def test_every_refused_point_says_which_test_refused() -> None:
    source = render_report(make_run()).replace("\N{NO-BREAK SPACE}", " ")
    assert source.count("refused, not sure") == 2 * 3  # drawn for screens and for phones
    assert "no reason kept" not in source


def test_the_middle_curve_ends_where_the_first_run_ends() -> None:
    curves = [[(0.0, 1.0), (10.0, 2.0)], [(0.0, 3.0), (20.0, 5.0)], []]
    found = middle_curve(curves)
    assert found[0] == (0.0, 2.0)
    assert found[-1][0] == 10.0
    assert found[-1][1] == pytest.approx((2.0 + 4.0) / 2)
    assert middle_curve([[]]) == []


def test_a_page_names_its_method_and_speaks_of_clones_where_there_are_some() -> None:
    record = make_run()
    record.summary.method = "iql"
    with_clones = render_report(record)
    assert "method iql · run" in with_clones and "small dots: single clones" in with_clones.lower()
    for name in ("behavior", "start"):
        del record.summary.scores[name]
    without = render_report(record)
    assert "small dots: single clones" not in without.lower() and "2.22 × data" in without


def test_the_footer_says_where_the_logs_of_tasks_are_as_the_pages_do(repository: Path) -> None:
    record = make_run()
    logs = f"/my runs/x/{TASKS}"
    known = {"folder": "/my runs/x", "artifact_root": "s3://b/unio4", "tracking": None}
    record.summary.place = Place.model_validate(known | {"logs": logs, "host": "box", "cpu": "Z80, 1 cores"})
    text = Page(render_report(record)).text
    assert "logs of tasks" in text and logs in text
    pages = (repository / "docs" / "pipelines.md").read_text()
    assert f"`log.txt` in a folder of its name below `runs/<run>/{TASKS}/" in pages
