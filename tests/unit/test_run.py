"""The whole method in one process: what it leaves behind, and that equal runs are equal to the bit."""

import copy
import html
import io
import itertools
import json
import re
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_runs import ENVIRONMENT, call, files_under, record, run_arguments

from unio4_lib import __version__, words
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4 import trainings as method
from unio4_lib.progress import Reporter
from unio4_lib.runs import inline as run
from unio4_lib.sources.grammar import load_transitions

STAGES = [
    *("prepare-dataset", "clone-behavior", "fit-critics", "fit-dynamics", "improve-policy"),
    *("finetune-online", "report"),
]
# What says when and where a run was, not what it found.
CIRCUMSTANCES = ("run_id", "stages", "place")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def dataset(home: Path) -> str:
    return record(home)


@pytest.fixture(autouse=True)
def datasets(isolated: None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(dataset: str, home: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """One run by the real command, which many tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(home))
        command = [sys.executable, "-m", "unio4_lib.cli", *run_arguments(dataset, output), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def summary(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(finished.stdout)


@pytest.fixture
def folder(finished: subprocess.CompletedProcess[str], output: Path) -> Path:
    return output / "latest"


def findings(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in CIRCUMSTANCES}


def once(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    code, out, err = call(capsys, *arguments, "--json", "--quiet")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_json_is_all_that_is_printed_and_stands_in_the_folder(
    finished: subprocess.CompletedProcess[str], summary: dict[str, Any], folder: Path
) -> None:
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert finished.stdout.startswith("{")
    for stage in STAGES[1:]:
        assert f"\n{stage}: " in finished.stderr, stage  # progress went the other way
    assert "dataset: 600 transitions" in finished.stderr


def test_a_run_leaves_exactly_this_behind(summary: dict[str, Any], output: Path, folder: Path) -> None:
    assert {path.name for path in output.iterdir()} == {"artifacts", "latest", summary["run_id"]}
    assert folder.is_symlink()
    assert folder.resolve() == (output / summary["run_id"]).resolve()
    policies = [
        f"policies/{name}/policy.{end}"
        for name in ("behavior", "offline", "online")
        for end in ("json", "safetensors")
    ]
    kinds = ("dataset", "behavior", "critics", "dynamics", "offline", "online", "report")
    references = [f"artifacts/{kind}.json" for kind in kinds]
    always = {"config.yaml", "summary.json", "metrics.json", "facts.json", "decisions.json", "report.html"}
    assert files_under(folder) == {*always, *policies, *references}


def test_the_summary_says_all_that_was_agreed(summary: dict[str, Any], dataset: str) -> None:
    assert {"run_id", "unio4_version", "config_digest", "dataset", "stages", "scores", "gate"} < set(summary)
    assert {"online_curve", "dip"} < set(summary)
    assert summary["unio4_version"] == __version__
    assert summary["run_id"].endswith(summary["config_digest"][:8])
    assert summary["dataset"]["id"] == dataset
    assert {"id", "transitions", "episodes", "mean_return", "normalized"} <= set(summary["dataset"])
    assert list(summary["stages"]) == STAGES
    for facts in summary["stages"].values():
        assert {"seconds", "reused", "resumed", "peak_memory_bytes"} <= set(facts)
    assert list(summary["scores"]) == ["behavior", "start", "offline", "online"]
    for scores in summary["scores"].values():
        assert {"mean_return", "stderr", "normalized", "episodes"} <= set(scores)
        assert {"mean_return", "stderr", "normalized", "episodes"} <= set(scores["sampled"])
    assert {"checks", "accepted", "estimator", "confidence", "margin", "acts"} <= set(summary["gate"])
    assert {"started_from", "portfolio", "estimates", "trust"} <= set(summary["gate"])
    assert [member["name"] for member in summary["gate"]["portfolio"]] == [
        *("uniform", "return:0.5"), *("advantage:1*return:1", "advantage:1")
    ]  # fmt: skip


def test_the_report_shows_the_numbers_of_the_summary(summary: dict[str, Any], folder: Path) -> None:
    page = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert summary["run_id"] in page
    for scores in summary["scores"].values():
        assert words.number(scores["mean_return"]) in page
        assert f"± {words.error(scores['stderr'], scores['mean_return'])}" in page
        sampled = scores["sampled"]
        error = words.error(sampled["stderr"], sampled["mean_return"])
        assert f"sampled actions {words.number(sampled['mean_return'])} ± {error}" in page
    assert summary["policy_digest"] in page
    assert "What the learner earned, by sampled actions" in page
    assert "recorded no" not in page  # every stage of today writes its facts
    assert "did not compare" not in page
    facts = json.loads((folder / "facts.json").read_text())
    assert list(facts) == STAGES
    assert len(facts["report"]["ope"]["points"]) >= 2  # the clones, at least


def test_numbers_of_the_summary_fit_each_other(summary: dict[str, Any], folder: Path) -> None:
    decisions = json.loads((folder / "decisions.json").read_text())
    trust = summary["gate"]["trust"]
    trusted = trust is None or trust["trusted"]
    tracks = load_config(dataset="minari:a/b-v0").improve.members
    assert len(summary["gate"]["estimates"]) == tracks
    # Tracks x steps / evaluate_every, where the models may judge.
    assert summary["gate"]["checks"] == len(decisions) == (tracks * 20 // 5 if trusted else 0)
    assert summary["gate"]["accepted"] == sum(entry["accepted"] for entry in decisions)
    estimates = [sum(ways.values()) for ways in summary["gate"]["estimates"]]
    assert summary["gate"]["chosen_member"] == estimates.index(max(estimates))
    behavior = summary["scores"]["behavior"]
    assert behavior["episodes"] == 4  # of the one plain clone
    curve = summary["online_curve"]
    assert curve[0][0] == 0
    assert curve[-1][0] >= 600
    assert [point[0] for point in curve] == sorted({point[0] for point in curve})
    assert summary["dip"] == pytest.approx(curve[1][1] / curve[0][1])


def test_the_same_config_gives_the_same_bits(
    summary: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--runner", "inline", "--tracking", "none", "--output", str(tmp_path)]
    again = once(capsys, [*arguments, "--config", str(folder / "config.yaml")])
    assert findings(again) == findings(summary)
    second = tmp_path / "latest"
    for name in ("config.yaml", "decisions.json", "policies/behavior/policy.safetensors"):
        assert (second / name).read_bytes() == (folder / name).read_bytes(), name
    assert without_seconds(second) == without_seconds(folder)


def without_seconds(folder: Path) -> dict[str, Any]:
    logs = json.loads((folder / "metrics.json").read_text())
    assert set(logs) == set(STAGES[1:-1])
    return {
        stage: [(entry["step"], entry["values"]) for entry in log["entries"]] for stage, log in logs.items()
    }


class InTurn:
    """An executor without threads: each stage is done before the next one begins."""

    def __init__(self, max_workers: int) -> None:
        assert max_workers == 2

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, function: Any, *arguments: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done


def test_threads_change_no_number(
    summary: dict[str, Any],
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "ThreadPoolExecutor", InTurn)
    assert findings(once(capsys, run_arguments(dataset, tmp_path))) == findings(summary)


def test_another_seed_gives_another_policy(
    summary: dict[str, Any], dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = once(capsys, run_arguments(dataset, tmp_path, seed=2))
    for name in ("policy_digest", "config_digest", "online_curve"):
        assert other[name] != summary[name], name
    assert other["scores"]["behavior"] != summary["scores"]["behavior"]
    assert other["dataset"] == summary["dataset"]


def test_evaluate_repeats_the_scores_of_the_run(
    summary: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = copy.deepcopy(summary)
    same = ("--episodes", "4", "--seed", "1000003", "--json", "--quiet")
    for place, name in ((folder, "online"), (folder / "policies" / "offline", "offline")):
        scores = summary["scores"][name]
        sampled, plain = scores.pop("sampled"), scores.pop("mean_action")
        acts = scores.pop("acts")
        assert scores == (sampled if acts == "sampled" else plain)
        for wanted, more in ((sampled, ("--sampled",)), (plain, ("--mean",)), (scores, ())):
            code, out, err = call(capsys, "evaluate", str(place), *same, *more)
            assert (code, err) == (0, "")
            found = json.loads(out)
            assert {key: found[key] for key in wanted} == wanted
    assert found["policy"] == str(folder / "policies" / "offline")
    assert found["interval"][0] <= found["mean_return"] <= found["interval"][1]


def test_evaluate_can_sample_and_take_other_episodes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", str(folder), "--episodes", "8", "--quiet", "--json")
    plain, sampled, other = (
        json.loads(call(capsys, *command, *more)[1]) for more in ((), ("--sampled",), ("--seed", "5"))
    )
    assert (plain["sampled"], sampled["sampled"]) == (False, True)
    assert len({plain["mean_return"], sampled["mean_return"], other["mean_return"]}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"improve__estimator": "amq-sum", "improve__confidence": 0.5, "improve__start_states": "dataset"},
        {"improve__estimator": "amq-mean", "improve__margin": 0.05, "improve__model_noise": True},
        {"improve__advantages": "critic", "behavior__diversity": "paper", "extract__members": 0},
        {"critics__kind": "sarsa", "prepare__reward_scaling": "dynamic", "behavior__std": "shared"},
        {"seed": 10**30, "evaluate__seed": 10**40},
        {"finetune__critic": "offline", "finetune__warmup_steps": 0, "behavior__members": 1},
    ],
    ids=lambda changed: " ".join(f"{value}" for value in changed.values()),
)
def test_every_variant_runs(
    changed: dict[str, Any], dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = once(capsys, run_arguments(dataset, tmp_path, **changed))
    assert list(summary["stages"]) == STAGES
    for name in ("estimator", "confidence", "margin"):
        wanted = changed.get(f"improve__{name}")
        assert wanted is None or summary["gate"][name] == wanted


def test_the_offline_value_is_in_the_unit_of_the_environment(dataset: str) -> None:
    settings = ["prepare.reward_scaling=number", "prepare.reward_scale=0.1", "critics.steps=100"]
    config = load_config(dataset=dataset, overrides=settings)
    transitions, device = load_transitions(dataset), torch.device("cpu")
    data = OfflineData.build(transitions, config.prepare, discount=0.99, device=device)
    critics = method.fit_critics(data, config, Reporter(None))[0].requires_grad_(False)
    value = method.offline_value(data, critics)
    # Rewards were scaled by 0.1: V of the critics is a tenth of V in the environment.
    torch.testing.assert_close(value(data.observations), 10.0 * critics.values(data.observations))
    assert all(parameter.requires_grad for parameter in value.net.parameters())  # fine-tuning goes on


def test_fine_tuning_starts_from_the_offline_value_where_it_is_asked_to(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"finetune__warmup_steps": 0, "finetune__deliver": "last"}
    offline, refit = (
        once(capsys, run_arguments(dataset, tmp_path, finetune__critic=critic, **settings))
        for critic in ("offline", "refit")
    )
    assert offline["scores"]["offline"] == refit["scores"]["offline"]
    assert offline["policy_digest"] != refit["policy_digest"]


def test_the_table_and_what_stands_below_it(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, *run_arguments(dataset, tmp_path), "--quiet")
    assert code == 0
    summary = json.loads((tmp_path / "latest" / "summary.json").read_text())
    rows = {cells[0]: cells[1:] for cells in table_cells(out)}
    assert list(rows) == ["stage", *STAGES]
    for stage, name in (
        ("clone-behavior", "behavior"),
        ("improve-policy", "offline"),
        ("finetune-online", "online"),
    ):
        facts = summary["scores"][name]
        assert rows[stage][1:] == [f"{facts['mean_return']:.1f}", f"{facts['stderr']:.1f}", ""]
    assert rows["prepare-dataset"][1] == f"{summary['dataset']['mean_return']:.1f}"
    gate, dip, place, following = out.splitlines()[-4:]
    found = summary["gate"]
    assert gate.startswith(f"gate: {found['accepted']} of {found['checks']} candidates accepted; begun as ")
    begun = found["portfolio"][found["started_from"][found["chosen_member"]]]
    assert f"begun as {begun['name']}, the judge's choice of 4" in gate
    assert dip.startswith(f"dip:  {summary['dip']:.2f} ")
    assert place == f"run:  {tmp_path / summary['run_id']} ({tmp_path / 'latest'})"
    assert following == f"next: unio4 evaluate {tmp_path / 'latest'} --episodes 100"
    assert call(capsys, *following.split()[2:], "--episodes", "2", "--quiet")[0] == 0


def table_cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def test_progress_on_a_terminal_has_rate_and_time(dataset: str, tmp_path: Path) -> None:
    config = load_config(dataset=dataset, overrides=settings_of(run_arguments(dataset, tmp_path)))
    terminal = io.StringIO()
    run.run(config, tmp_path, Console(file=terminal, force_terminal=True, width=120))
    last = [line for line in terminal.getvalue().splitlines() if "finetune-online" in line][-1]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    assert re.search(
        r"finetune-online +━+ +600/600 +[\d,]+/s +in \d\d:\d\d +return [\d.,]+\s±\s[\d.]+", plain
    )


def settings_of(arguments: list[str]) -> list[str]:
    return [text for flag, text in itertools.pairwise(arguments) if flag == "--set"]


def test_narrower_action_bounds_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = half_bounds(tmp_path / "data")
    code, _, err = call(capsys, *run_arguments(source, tmp_path / "runs"), "--json")
    assert code == 0
    note = next(line for line in err.splitlines() if line.startswith("note: "))
    assert "action bounds [-1.5, 1.5]" in note
    assert f"{ENVIRONMENT} allows [-3, 3]" in note


def half_bounds(folder: Path) -> str:
    source = load_transitions(f"collect:{ENVIRONMENT}?level=random&steps=200")
    info = replace(source.info, action_low=(-1.5,), action_high=(1.5,))
    replace(source, actions=source.actions.clip(-1.5, 1.5), info=info).save(folder)
    return f"transitions:{folder}"


def test_the_report_says_where_everything_is_and_how_to_score_again(folder: Path, output: Path) -> None:
    text = (folder / "report.html").read_text()
    place = json.loads((folder / "summary.json").read_text())["place"]
    assert place["artifact_root"] == str(output.absolute() / "artifacts")
    assert place["tracking"] is None  # as the run was asked
    assert f"unio4 evaluate {folder.resolve()} --episodes 100" in text
    for name in ("artifact_root", "host", "cpu"):
        assert html.escape(str(place[name])) in text, name
