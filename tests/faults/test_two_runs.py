"""Two runs at once against one root do not disturb each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import call, run_arguments, saved_recording

TOGETHER = 2
LONGEST_SECONDS = 600  # a busy machine is slow, not stuck


def test_two_runs_at_once_find_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = saved_recording(tmp_path / "recorded")
    more = ("--artifact-root", str(tmp_path / "root"), "--json", "--quiet")
    words = [*run_arguments(dataset, tmp_path / "runs"), *more, "--set", "checkpoint_seconds=0"]
    command = [sys.executable, "-m", "unio4_lib.cli", *words]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(TOGETHER)
    ]
    summaries = []
    for process in running:
        out, err = process.communicate(timeout=LONGEST_SECONDS)
        assert (process.returncode, err) == (0, "")
        summaries.append(json.loads(out))
    first, second = summaries
    assert first["run_id"] != second["run_id"]
    for key in ("scores", "policy_digest", "online_curve", "gate"):
        assert first[key] == second[key], key
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    third = json.loads(out)
    assert all(facts["reused"] for facts in third["stages"].values())
    assert third["policy_digest"] == first["policy_digest"]
