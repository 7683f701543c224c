"""A run that does not get to its end: it stops at once, says why, and leaves what can be used."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from broken_inputs import saved
from survivors import until
from tiny_runs import call, files_under, run_arguments

from unio4_lib.methods.unio4 import trainings as method

ENDLESS = 150_000  # steps: minutes at this size
PROMPT_SECONDS = 60.0  # far less than the branch would take, far more than a busy machine needs


@pytest.fixture
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("dataset"))


def only_run(output: Path) -> Path:
    """The folder of the one run below ``output``."""
    (folder,) = (
        path for path in output.iterdir() if (path / "config.yaml").exists() and not path.is_symlink()
    )
    return folder


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("broken", "endless"),
    [
        ("fit_dynamics", {"behavior__steps": ENDLESS, "behavior__patience": ENDLESS}),
        ("clone_behavior", {"dynamics__steps": ENDLESS, "dynamics__patience": ENDLESS}),
        ("fit_critics", {"dynamics__steps": ENDLESS, "dynamics__patience": ENDLESS}),
    ],
)
def test_a_failure_in_one_branch_stops_the_other(
    broken: str,
    endless: dict[str, Any],
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(method, broken, fail)
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (tmp_path / "latest").symlink_to("earlier")
    began, threads = time.monotonic(), threading.active_count()
    code, out, err = call(capsys, *run_arguments(dataset, tmp_path, **endless), "--json", "--quiet")
    assert time.monotonic() - began < PROMPT_SECONDS
    assert (code, out) == (1, "")
    assert err == "error: RuntimeError: boom (UNIO4_DEBUG=1 or --debug shows where)\n"
    assert threading.active_count() <= threads
    assert (tmp_path / "latest").resolve() == earlier
    folder = only_run(tmp_path)
    assert files_under(folder) >= {"config.yaml", "failed.txt", "artifacts/dataset.json"}
    assert (folder / "failed.txt").read_text().startswith("RuntimeError: boom\nfinished stages: prepare-")


def test_what_was_reached_before_a_failure_can_be_used(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method, "finetune_online", fail)
    assert call(capsys, *run_arguments(dataset, tmp_path), "--quiet")[0] == 1
    folder = only_run(tmp_path)
    assert {path.name for path in (folder / "policies").iterdir()} == {"behavior", "offline"}
    assert "improve-policy" in (folder / "failed.txt").read_text().splitlines()[1]
    code, out, _ = call(capsys, "evaluate", str(folder), "--episodes", "2", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["policy"].endswith("policies/offline")


def test_an_interrupt_ends_all_branches(dataset: str, tmp_path: Path) -> None:
    endless = {
        f"{name}__{key}": ENDLESS for name in ("behavior", "dynamics") for key in ("steps", "patience")
    } | {"critics__steps": ENDLESS}
    # A shell may have started the tests with interrupts ignored; a user's terminal never does.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + (
        "from unio4_lib.cli.commands import main; main()"
    )
    command = [sys.executable, "-c", program, *run_arguments(dataset, tmp_path, **endless)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("dataset: ") for line in process.stderr)
        until(lambda: bool(list(tmp_path.glob("*/artifacts/dataset.json"))))
        time.sleep(0.5)  # all branches are at work
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=PROMPT_SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted"
    folder = only_run(tmp_path)
    assert (folder / "failed.txt").read_text() == "interrupted\nfinished stages: prepare-dataset\n"
