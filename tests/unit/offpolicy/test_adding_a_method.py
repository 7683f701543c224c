"""The walk of docs/extending.md, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_runs import saved_recording

ROOT = Path(__file__).parents[3]
MOST_LINES = 60
TINY = ("train.steps=20", "train.evaluate_every=10", "finetune.env_steps=80", "finetune.warmup_steps=40")


def test_a_method_is_a_file_and_a_line(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    room, line = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert len(room.splitlines()) <= MOST_LINES
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "unio4_lib", copy / "unio4_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "unio4_lib" / "methods" / "bc.py").write_text(room)
    registry = copy / "unio4_lib" / "methods" / "registry.py"
    registry.write_text(registry.read_text().replace("METHODS = {\n", f"METHODS = {{\n{line}"))
    dataset = saved_recording(tmp_path / "recorded")
    told = ["--method", "bc", "--dataset", dataset, "--output", str(tmp_path / "runs"), "--tracking", "none"]
    sets = [part for text in (*TINY, "evaluate.episodes=2", "bc.hidden=[8]") for part in ("--set", text)]
    command = [sys.executable, "-m", "unio4_lib.cli", "run", "--runner", "inline", *told, *sets, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["method"], set(summary["scores"])) == ("bc", {"offline", "online"})
    assert not (ROOT / "unio4_lib" / "methods" / "bc.py").exists()
