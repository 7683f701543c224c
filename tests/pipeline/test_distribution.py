"""What is installed from a distribution runs outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import run_arguments, saved_recording

ROOT = Path(__file__).parents[2]
BUILD_SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"


def run(command: list[str], folder: Path, **environment: str) -> str:
    told = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_runs_elsewhere(tmp_path: Path) -> None:
    """Presets, pipelines and the pages' styles are all in it."""
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    checkout.mkdir()
    elsewhere.mkdir()
    files = run(["git", "ls-files", "-z"], ROOT).split("\0")
    for name in filter(None, files):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
    sdist = run([sys.executable, "-c", BUILD_SDIST], checkout).split()[-1]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    own = ["--no-deps", "--no-build-isolation"]
    run([*pip, "wheel", *own, "--wheel-dir", str(tmp_path), str(checkout / "dist" / sdist)], elsewhere)
    (wheel,) = tmp_path.glob("*.whl")
    run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], elsewhere)
    unio4 = [sys.executable, "-m", "unio4_lib.cli"]
    place = {"PYTHONPATH": str(tmp_path / "site")}
    where = run([sys.executable, "-c", "import unio4_lib; print(unio4_lib.__file__)"], elsewhere, **place)
    assert where.startswith(str(tmp_path / "site"))
    told = run_arguments(saved_recording(tmp_path), elsewhere / "runs", finetune__env_steps=400)
    told[told.index("inline")] = "process"
    summary = json.loads(run([*unio4, *told, "--json", "--quiet"], elsewhere, **place))
    assert "<style>" in (elsewhere / "runs" / summary["run_id"] / "report.html").read_text()
    presets = run(
        [*unio4, "config", "show", "--method", "iql", "--dataset", "minari:a/b-v0"], elsewhere, **place
    )
    assert "steps: 15000" in presets
