"""The command: exit codes and one line for every error."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from unio4_lib import __version__
from unio4_lib.artifacts.s3 import StoreUnavailable
from unio4_lib.cli import commands as cli
from unio4_lib.cli.errors import explain
from unio4_lib.errors import InputError, Preempted
from unio4_lib.methods.unio4.settings import UniO4Config

SLOWEST_HELP_SECONDS = 0.6
HOPPER = "minari:mujoco/hopper/medium-v0"
SCORE = {"mean_return": 1200.4, "stderr": 31.2, "normalized": 37.5, "episodes": 20}
SUMMARY: dict[str, Any] = {
    "run_id": "run-1",
    "dataset": {},
    "stages": {"clone-behavior": {"seconds": 12.3, "reused": False}, "fit-critics": {"seconds": 4.0}},
    "scores": {"behavior": SCORE},
    "gate": {
        "checks": 12,
        "accepted": 3,
        "estimator": "return",
        "acts": "sampled",
        "chosen_member": 1,
        "started_from": [0, 1],
        "portfolio": [{"name": "uniform", "estimates": {}}, {"name": "return:1", "estimates": {}}],
        "trust": {"weighting": "uniform", "recorded": 900.0, "modeled": 200.0, "trusted": False},
        "fqe": {"values": [3.0, 2.0], "rank_correlation": -1.0, "agrees": False},
    },
}


def unio4(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unio4_lib.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``main`` in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``run`` and ``evaluate_policy`` that record their calls; an exception under "raise" is raised."""
    monkeypatch.setattr("unio4_lib.runs.preflight.check_places", lambda *_: None)
    seen: dict[str, Any] = {}

    def run(config: UniO4Config, output: Path, console: object, **options: Any) -> dict[str, Any]:
        seen.update(options, config=config, output=output, console=console)
        if "raise" in seen:
            raise seen["raise"]
        found: dict[str, Any] = seen.get("summary", SUMMARY)
        return found

    def evaluate_policy(place: str, **options: Any) -> dict[str, Any]:
        seen.update(place=place, **options)
        return SCORE

    for name, function in (("unio4_lib.runs.inline", run), ("unio4_lib.runs.score_policy", evaluate_policy)):
        module = ModuleType(name)
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_help_is_there_at_once() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert unio4("--help").returncode == 0
        return time.perf_counter() - start

    # The best of several: the machine may be busy, the command may not.
    assert min(seconds() for _ in range(5)) < SLOWEST_HELP_SECONDS


def test_help_loads_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'pydantic')"
    code = f"import sys, unio4_lib.cli.commands; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--foo"], "error: No such option: --foo; see unio4 run --help"),
        (["runn"], "error: No such command 'runn'. Did you mean 'run'?; see unio4 --help"),
        (["evaluate"], "error: Missing argument 'RUN'; see unio4 evaluate --help"),
        (["config"], "error: Missing command; see unio4 config --help"),
        (
            ["run", "--runner", "inline", "--dataset", HOPPER, "--set", "improve.stps=3"],
            "error: --set improve.stps=3: unknown key improve.stps; did you mean improve.steps?",
        ),
        (
            ["run", "--runner", "inline", "--dataset", HOPPER, "--preset", "fast"],
            "error: --preset fast: no such preset; expected one of quick, standard, paper",
        ),
        (
            ["run", "--runner", "inline", "--dataset", HOPPER, "--seed", "-1"],
            "error: --seed: seed is -1; expected a whole number >= 0",
        ),
        (
            ["evaluate", "nowhere"],
            "error: nowhere: no such folder; expected a run such as runs/latest, or a policy",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    ended = unio4(*arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line + "\n")


def test_version_and_bare_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"unio4 {__version__}\n", "")
    code, out, _ = call(capsys)
    assert code == 0
    assert "evaluate" in out


def test_run_hands_over_the_settings(fake_run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys,
        *(
            "run",
            "--runner",
            "inline",
            "--dataset",
            HOPPER,
            "--preset",
            "standard",
            "--set",
            "improve.steps=300",
        ),
        *("--set", "improve.clip=0.1", "--seed", "7", "--output", "elsewhere", "--json"),
    )
    assert (code, err) == (0, "")
    assert json.loads(out) == SUMMARY
    config = fake_run["config"]
    assert (config.dataset, config.seed) == (HOPPER, 7)
    assert (config.improve.steps, config.improve.clip) == (300, 0.1)
    assert fake_run["output"] == Path("elsewhere")
    assert fake_run["console"].stderr
    assert (fake_run["artifact_root"], fake_run["reuse"], fake_run["cache"]) == (None, True, None)
    more = ("--artifact-root", "s3://b/p", "--no-reuse", "--cache", "c")
    assert call(capsys, "run", "--runner", "inline", "--dataset", HOPPER, "--json", *more)[0] == 0
    assert (fake_run["artifact_root"], fake_run["reuse"], fake_run["cache"]) == ("s3://b/p", False, Path("c"))


def test_run_prints_a_table(fake_run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "run", "--runner", "inline", "--dataset", HOPPER, "--quiet")
    assert code == 0
    assert fake_run["console"] is None
    row = next(line for line in out.splitlines() if "clone-behavior" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("clone-behavior", "12.3", "1200.4", "31.2", "37.5")
    ]
    assert "gate: 3 of 12 candidates accepted; begun as return:1, the judge's choice of 2; " in out
    assert "delivered with sampled actions" in out
    assert "the models may not judge: in them clones (uniform) return 200, the data recorded 900" in out
    assert "fitted Q evaluation puts a plain clone above the models' choice, rank correlation -1.00; " in out


def printed(capsys: pytest.CaptureFixture[str], seen: dict[str, Any], **changed: Any) -> str:
    """What a run prints whose summary was changed so."""
    seen["summary"] = SUMMARY | changed
    code, out, _ = call(capsys, "run", "--runner", "inline", "--dataset", HOPPER, "--quiet")
    assert code == 0
    return out


@pytest.mark.parametrize(
    ("fqe", "line"),
    [
        (
            {"values": [3.0, 2.0], "rank_correlation": 1.0, "agrees": True},
            "      fitted Q evaluation agrees with the models' choice, rank correlation 1.00; it decides "
            "nothing",
        ),
        (
            {"values": [3.0, 2.0], "rank_correlation": None, "agrees": False},
            "      fitted Q evaluation puts a plain clone above the models' choice; it decides nothing",
        ),
        (None, None),
    ],
)
def test_the_second_opinion_is_told_as_it_is(
    fqe: dict[str, Any] | None,
    line: str | None,
    fake_run: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = printed(capsys, fake_run, gate=SUMMARY["gate"] | {"fqe": fqe})
    assert [found for found in out.splitlines() if "fitted Q" in found] == ([line] if line else [])


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        (
            {"weighting": "uniform", "recorded": 900.0, "modeled": 200.0, "trusted": False},
            ["      the models may not judge: in them clones (uniform) return 200, the data recorded 900"],
        ),
        ({"weighting": "uniform", "recorded": 900.0, "modeled": 880.0, "trusted": True}, []),
        (None, []),
    ],
)
def test_models_that_may_judge_are_no_news(
    trust: dict[str, Any] | None,
    said: list[str],
    fake_run: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = printed(capsys, fake_run, gate=SUMMARY["gate"] | {"trust": trust})
    assert [line for line in out.splitlines() if "may not judge" in line] == said


ONE_LOOK = "return at the one early look of fine-tuning / return before it; one look can miss a drop"
WORST = "worst return in the first tenth of fine-tuning / return before it"


@pytest.mark.parametrize(
    ("dip", "steps", "said"),
    [
        (0.75, [20_000], [f"dip:  0.75 ({ONE_LOOK})"]),
        (0.75, [100, 20_000, 90_000], [f"dip:  0.75 ({ONE_LOOK})"]),  # before and after do not count
        (0.75, [20_000, 21_000], [f"dip:  0.75 ({WORST})"]),
        (None, [20_000], []),
    ],
)
def test_the_dip_says_by_how_many_looks_it_is_known(
    dip: float | None,
    steps: list[int],
    said: list[str],
    fake_run: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    curve = [[0.0, 200.0, 4.0], *([float(step), 150.0, 4.0] for step in steps)]
    out = printed(capsys, fake_run, dip=dip, online_curve=curve)
    assert [line for line in out.splitlines() if line.startswith("dip:")] == said


@pytest.mark.parametrize(("mean", "shown"), [(90.0, "90.0"), (None, "")])
def test_data_that_told_no_mean_has_an_empty_cell(
    mean: float | None, shown: str, fake_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {"prepare-dataset": {"seconds": 2.0}}
    out = printed(capsys, fake_run, dataset={"mean_return": mean}, stages=stages)
    row = next(line for line in out.splitlines() if "prepare-dataset" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["prepare-dataset", "2.0", shown, "", ""]


def test_paper_preset_says_that_the_task_is_unknown(
    fake_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, err = call(
        capsys, "run", "--runner", "inline", "--dataset", "minari:mine", "--preset", "paper", "--json"
    )
    assert json.loads(out) == SUMMARY
    assert err.startswith("note: no task of the paper preset fits dataset minari:mine")


def test_a_full_cache_is_not_cured_by_another_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache" / "work" / "a"))
    text, code = explain(full)
    assert code == 2
    assert text.endswith("cache/work/a; free some or choose another --cache (UNIO4_CACHE)")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("row 3 is\nNaN"), 2, "error: row 3 is NaN"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            2,
            "error: no space left on the disk for runs/a; free some or choose another --output",
        ),
        (
            RuntimeError("write failed: No space left on device (os error 28)"),
            2,
            "error: no space left on the disk; free some or choose another --output or another --cache "
            "(UNIO4_CACHE)",
        ),
        (
            ZeroDivisionError("float division"),
            1,
            "error: ZeroDivisionError: float division (UNIO4_DEBUG=1 or --debug shows where)",
        ),
        (ValueError(), 1, "error: ValueError: no message (UNIO4_DEBUG=1 or --debug shows where)"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (SystemExit(75), 75, ""),
        (Preempted("asked to end"), 75, "error: asked to end"),
        (StoreUnavailable("s3://b: not now"), 75, "error: s3://b: not now"),
    ],
)
def test_what_happens_when_a_run_fails(
    error: BaseException, code: int, line: str, fake_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run["raise"] = error
    handler = signal.getsignal(signal.SIGTERM)
    found, out, err = call(capsys, "run", "--runner", "inline", "--dataset", HOPPER, "--quiet")
    assert signal.getsignal(signal.SIGTERM) == handler  # a process goes on as it was
    assert (found, out, err.removesuffix("\n")) == (code, "", line)


@pytest.mark.parametrize("way", ["option", "variable"])
def test_traceback_on_demand(
    way: str,
    fake_run: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_run["raise"] = ZeroDivisionError("oops")
    if way == "variable":
        monkeypatch.setenv("UNIO4_DEBUG", "1")
    arguments = ["run", "--runner", "inline", "--dataset", HOPPER, *(["--debug"] if way == "option" else [])]
    code, _, err = call(capsys, *arguments)
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert err.endswith("error: ZeroDivisionError: oops\n")


def test_evaluate(fake_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "evaluate", str(tmp_path), "--episodes", "9", "--sampled", "--json")
    assert (code, json.loads(out)) == (0, SCORE)
    assert fake_run["place"] == str(tmp_path)
    assert (fake_run["episodes"], fake_run["sampled"], fake_run["seed"]) == (9, True, 1_000_003)
    _, out, _ = call(capsys, "evaluate", str(tmp_path))
    assert "1200.4" in out
    assert fake_run["sampled"] is None  # as policy.json says
    call(capsys, "evaluate", str(tmp_path), "--mean")
    assert fake_run["sampled"] is False


def test_config_commands() -> None:
    runner = CliRunner()
    shown = runner.invoke(cli.app, ["config", "show", "--dataset", HOPPER, "--origins"])
    assert shown.exit_code == 0
    assert f"dataset: {HOPPER}  # --dataset\n" in shown.stdout
    schema = json.loads(runner.invoke(cli.app, ["config", "schema"]).stdout)
    assert schema["additionalProperties"] is False
    assert runner.invoke(cli.app, ["config", "docs"]).stdout.startswith("# Settings\n")


def test_dataset_commands_are_mounted(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "dataset", "--help")
    assert code == 0
    assert "inspect" in out
    code, out, err = call(capsys, "dataset", "inspect", "nonsense:x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")


def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m unio4_lib.cli.commands config schema | head -c 1"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env=os.environ
    )
    assert (ended.stdout, ended.stderr) == ("{", "")
