"""The film: small, moving, of every policy; one line where nothing can draw."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_records import make_run
from PIL import Image
from test_reading import write_run

from unio4_lib.nets.files import save_policy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec

TASK = "InvertedPendulum-v5"


def run_with_policies(folder: Path) -> Path:
    run = write_run(folder, make_run())
    for name in ("behavior", "offline", "online"):
        policy = GaussianPolicy(PolicySpec(1, 4, 1, (4,), "relu", "state"))
        save_policy(policy, run / "policies" / name, env_id=TASK, env_kwargs={})
    return run


def report(run: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unio4_lib.cli", "report", str(run), "--video"]
    command += ["--frames", "6", "--size", "64"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_a_film_of_three_policies(tmp_path: Path) -> None:
    run = run_with_policies(tmp_path / "run")
    ended = report(run)
    assert ended.returncode == 0, ended.stderr
    if "no video" in ended.stderr:
        pytest.skip(ended.stderr.strip())
    with Image.open(io.BytesIO((run / "rollouts.gif").read_bytes())) as film:
        assert film.n_frames >= 2  # pictures that are alike are joined
        assert film.size == (3 * 64 + 2 * 6, 64 + 20)
        assert np.asarray(film.convert("RGB")).std() > 10
    assert "data:image/gif;base64," in (run / "report.html").read_text()


def test_without_a_renderer_there_is_one_line_and_a_report(tmp_path: Path) -> None:
    run = run_with_policies(tmp_path / "run")
    ended = report(run, MUJOCO_GL="off")
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1
    assert "note: no video: " in ended.stderr
    assert (run / "report.html").exists()
    assert not (run / "rollouts.gif").exists()
