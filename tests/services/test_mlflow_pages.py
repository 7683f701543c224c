"""A whole run in MLflow's own pages, in a real browser: found, drawn, with the numbers of the run."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow_process import MlflowServer
from sender_here import send_here
from tiny_runs import run_arguments, saved_recording
from whole_runs import STAGE_NAMES

from unio4_lib import words
from unio4_lib.cli import commands as cli

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")
pytest.importorskip("websocket", reason="websocket-client is not installed")

from browser import CHROMIUM, Browser, browser
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

WIDTHS, HEIGHT = (1280, 390), 5000
RUN_NAME, MODEL = "seen in a browser", "seen-pendulum"
# What MLflow 3.17's own pages say on any experiment, whatever was tracked.
MLFLOWS_OWN = re.compile(
    r"AG Grid: since v27\.1"  # its table uses names that its table library has renamed
    r"|ResizeObserver loop completed with undelivered notifications"  # harmless; Chromium says it of layouts
    r"|404 \(Not Found\) http://127\.0\.0\.1:\d+/ajax-api/2\.0/mlflow/users/current$"  # are there users?
)
CLICK = """(name => { const e = document.querySelector(`[data-component-id="${name}"]`);
  e?.click(); return Boolean(e); })"""
SIDEBAR, ASSISTANT = "mlflow_header.toggle_sidebar_button", "mlflow.assistant.chat_panel.close"
ROWS = "[...document.querySelectorAll('.ag-row')].map(row => row.innerText).join('\\n')"
OPEN_ROW = """(button => { button?.click(); return Boolean(button); })
  (document.querySelector('.ag-row [col-id*="Run Name"] button'))"""
HEADS = "[...document.querySelectorAll('.ag-header-cell')].map(head => head.innerText)"
LINK = """document.querySelector('a[href*="viewStateShareKey=scores"]')?.href"""
TABLE = """[...document.querySelectorAll('[role=row]')].map(row => row.innerText.split('\\n')
  .map(text => text.trim()).filter(Boolean))"""
# What is drawn in charts that have marks: places and heights of lines; for bars their lengths come first.
CHARTS = """[...document.querySelectorAll('.js-plotly-plot')]
  .filter(plot => plot.querySelector('.scatterlayer path, .barlayer path'))
  .flatMap(plot => plot.data.map(line => [[...line.x], [...line.y]]))"""


@dataclass(frozen=True)
class Tracked:
    """A run, what it printed, and where MLflow shows it."""

    summary: dict[str, Any]
    client: MlflowClient
    runs: dict[str, str]  # ids by stage; "run" is the one above them
    address: str

    def page(self, stage: str, tab: str = "") -> str:
        return f"{self.address}/runs/{self.runs[stage]}{tab}"


@pytest.fixture(scope="module")
def tracked(mlflow_home: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    folder = tmp_path_factory.mktemp("seen")
    words = run_arguments(saved_recording(folder), folder / "runs")
    words[words.index("--tracking") + 1] = mlflow_home.uri
    words += ["--experiment", RUN_NAME, "--run-name", RUN_NAME, "--register", MODEL, "--json"]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        pytest.raises(SystemExit) as ended,
    ):
        send_here(patch)
        cli.main(words)
    assert ended.value.code == 0
    client = MlflowClient(mlflow_home.uri)
    experiment = client.get_experiment_by_name(RUN_NAME)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    ids = {run.data.tags["unio4.stage"]: run.info.run_id for run in runs}
    address = f"{mlflow_home.uri}/#/experiments/{experiment.experiment_id}"
    return Tracked(json.loads(out.getvalue()), client, ids, address)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Browser, mlflow_home: MlflowServer) -> Iterator["Pages"]:
    """MLflow's pages; whatever a test looks at, nothing was complained of and nobody far was asked."""
    pages = Pages(chromium, mlflow_home.uri)
    yield pages
    assert [text for text in pages.complaints if not MLFLOWS_OWN.search(text)] == []
    assert {urlsplit(url).hostname for url in pages.requests} <= {"127.0.0.1", None}


class Pages:
    """MLflow's pages, with what it lays over and beside them put away."""

    def __init__(self, tab: Browser, server: str) -> None:
        self.tab, self.server = tab, server
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, address: str, width: int) -> None:
        # MLflow's pages remember what was opened.
        self.tab.call("Storage.clearDataForOrigin", origin=self.server, storageTypes="all")
        self.tab.open("about:blank", width=width)
        self.tab.open(address, width=width, height=HEIGHT)
        self.tab.wait_for("document.querySelector('main, [role=main], #root')?.innerText", address)
        self.tab.evaluate(f"{CLICK}('{ASSISTANT}')")
        self._put_sidebar_away(width)

    def at_every_width(self, address: str) -> Iterator[int]:
        """A page that is loaded once: MLflow's program takes seconds to begin."""
        self.open(address, WIDTHS[0])
        yield WIDTHS[0]
        for width in WIDTHS[1:]:
            self.tab.resize(width, HEIGHT)
            self.tab.wait_for(f"innerWidth === {width}", "the other width")
            self._put_sidebar_away(width)
            yield width

    def _put_sidebar_away(self, width: int) -> None:
        if width < 600:
            self.tab.wait_for(f"{CLICK}('{SIDEBAR}')", "the sidebar")

    def wait_for(self, expression: str, what: str) -> Any:
        found = self.tab.wait_for(expression, what)
        self.complaints, self.requests = list(self.tab.complaints), list(self.tab.requests)
        return found

    def wait_for_text(self, text: str) -> str:
        return str(
            self.wait_for(f"(t => t.includes({json.dumps(text)}) && t)(document.body.innerText)", text)
        )


@pytest.mark.parametrize("width", WIDTHS)
def test_stages_are_nested_below_their_run(width: int, tracked: Tracked, tab: Pages) -> None:
    tab.open(f"{tracked.address}/runs", width)
    rows = f"({ROWS}).includes({json.dumps(RUN_NAME)})"
    tab.wait_for(rows, "the run")
    assert STAGE_NAMES[0] not in tab.tab.evaluate(ROWS)
    tab.wait_for(OPEN_ROW, "the sign that opens the run")
    for name in STAGE_NAMES:
        tab.wait_for(f"({ROWS}).includes({json.dumps(name)})", name)


def test_a_run_shows_its_numbers(tracked: Tracked, tab: Pages) -> None:
    for _ in tab.at_every_width(tracked.page("run")):
        tab.wait_for_text("scores/online")
        shown = {row[0]: row[1] for row in tab.tab.evaluate(TABLE) if len(row) > 1}
        for name, score in tracked.summary["scores"].items():
            assert float(shown[f"scores/{name}"]) == pytest.approx(score["mean_return"])
            assert float(shown[f"scores_stderr/{name}"]) == pytest.approx(score["stderr"])
        assert float(shown["gate/checks"]) == tracked.summary["gate"]["checks"]
        text = tab.wait_for_text("The gate accepted")  # of the description
        for part in (*STAGE_NAMES, tracked.summary["dataset"]["id"], MODEL):
            assert part in text
    for _ in tab.at_every_width(tracked.page("finetune-online")):
        tab.wait_for_text("Fine-tunes the policy")


@pytest.mark.parametrize("stage", ["run", "finetune-online"])
def test_charts_are_drawn(stage: str, tracked: Tracked, tab: Pages) -> None:
    if stage == "run":
        wanted = [[tracked.summary["scores"]["online"]["mean_return"]], [tracked.runs["run"]]]
    else:
        curve = tracked.summary["online_curve"]
        wanted = [[point[0] for point in curve], [point[1] for point in curve]]
    there = f"lines.some(line => JSON.stringify(line) === JSON.stringify({json.dumps(wanted)}))"
    for _ in tab.at_every_width(tracked.page(stage, "/model-metrics")):
        drawn = tab.wait_for(f"(lines => {there} && lines)({CHARTS})", f"a chart of {wanted}")
        assert len(drawn) >= 3


def test_the_report_and_the_model_are_there(tracked: Tracked, tab: Pages) -> None:
    frame, online = "document.querySelector('iframe')", tracked.summary["scores"]["online"]
    for _ in tab.at_every_width(tracked.page("run", "/artifacts/report.html")):
        tab.wait_for_text("summary.json")
        tab.wait_for(f"{frame}?.getBoundingClientRect().width > 100", "the report")
        text = tab.wait_for(f"fetch({frame}.src).then(answer => answer.text())", "the text of the report")
        assert words.with_error(online["mean_return"], online["stderr"]) in text
    (version,) = tracked.client.search_model_versions(f"run_id = '{tracked.runs['run']}'")
    models = f"{tracked.address.partition('#')[0]}#/models"
    for _ in tab.at_every_width(f"{models}/{MODEL}/versions/{version.version}"):
        assert "Inputs (1)" in tab.wait_for_text("Outputs (1)")


@pytest.mark.parametrize("width", WIDTHS)
def test_scores_of_runs_stand_side_by_side(width: int, tracked: Tracked, tab: Pages) -> None:
    """Behind the link in the experiment's description; MLflow's own list has no column for them."""
    tab.open(f"{tracked.address}/runs", width)
    tab.wait_for(f"({ROWS}).includes({json.dumps(RUN_NAME)})", "the run")
    assert "scores/online" not in tab.tab.evaluate(HEADS)
    tab.open(tab.wait_for(LINK, "the link to the runs with their scores"), width)
    tab.wait_for("document.body.innerText.includes('1 matching run')", "the list without stages")
    if width > 600:  # MLflow has no columns on a phone
        heads = tab.wait_for(f"(heads => heads.includes('scores/online') && heads)({HEADS})", "the scores")
        assert heads[-6:] == ["score", "scores/offline", "scores/online", "dataset", "method", "seed"]
        shown = tab.tab.evaluate(ROWS).strip().split("\n")[-6:]
        scores = [tracked.summary["scores"][name]["mean_return"] for name in ("online", "offline", "online")]
        assert [float(text) for text in shown[:3]] == pytest.approx(scores, rel=0.01)
        assert shown[4:] == ["unio4", "1"]
