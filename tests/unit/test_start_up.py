"""What commands and stages import before they do anything: start-up is mostly that."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tiny_runs import run_arguments, saved_recording

from unio4_lib.methods.registry import find_method
from unio4_lib.stages.step import PREPARE

ROOT = Path(__file__).parents[2]
# From a twentieth of a second (NumPy) to three seconds (PyTorch, MLflow) of processor time each.
HEAVY = {
    *("boto3", "botocore", "gymnasium", "h5py", "kfp", "matplotlib", "minari", "mlflow", "mujoco", "numpy"),
    *("onnx", "pandas", "PIL", "pyarrow", "pydantic", "safetensors", "scipy", "torch"),
}
LEARNING = "numpy pydantic safetensors torch"
# Exactly what each brings in as soon as it is imported; what it then does may need more.
NEEDED = {
    "unio4_lib.cli.commands": "",
    "unio4_lib.cli.tracking": "",
    "unio4_lib.runs.doctor": "",
    "unio4_lib.methods.configs": "pydantic",
    "unio4_lib.methods.unio4.method": "pydantic",
    "unio4_lib.cli.artifacts": "pydantic",
    "unio4_lib.cli.run": "pydantic",
    "unio4_lib.cli.stage": "pydantic",
    "unio4_lib.cli.summary": "pydantic",
    "unio4_lib.cli.component": "pydantic",
    "unio4_lib.runs.local_run": "pydantic",
    "unio4_lib.stages.runner": "pydantic",
    "unio4_lib.tracking.sender": "",
    "unio4_lib.cli.dataset": "gymnasium h5py numpy",
    "unio4_lib.cli.submit": "numpy pydantic",
    "unio4_lib.cli.sweep": "numpy pydantic",
    "unio4_lib.cli.report": "numpy pydantic",
    PREPARE.module: "numpy pydantic",
    **{step.module: LEARNING for step in find_method("unio4").steps if step is not PREPARE},
}


def at_once(nodes: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that happen when the module is imported: not those in functions, nor for type checkers."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            checked = "TYPE_CHECKING" in ast.unparse(node.test)
            yield from at_once(node.orelse if checked else node.body + node.orelse)
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from at_once(node.body)


@cache
def imported(module: str) -> frozenset[str]:
    """What a module of ours imports at once; of the packages around it, too."""
    place = ROOT / module.replace(".", "/")
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    found = {module.rpartition(".")[0]} - {""}
    for node in at_once(ast.parse(source.read_text()).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {str(node.module)} | {name for name in below if is_ours(name)}
    return frozenset(found)


def is_ours(module: str) -> bool:
    place = ROOT / module.replace(".", "/")
    return module.startswith("unio4_lib") and (place.is_dir() or place.with_suffix(".py").is_file())


def heavy(module: str) -> set[str]:
    """The heavy packages that come with a module, at any distance."""
    found, waiting = {module}, [module]
    while waiting:
        new = imported(waiting.pop()) - found
        found |= new
        waiting += [name for name in new if is_ours(name)]
    return {name.partition(".")[0] for name in found} & HEAVY


@pytest.mark.parametrize("module", NEEDED)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    assert heavy(module) == set(NEEDED[module].split())


WATCHED = """
import atexit, sys
atexit.register(lambda: print("torch._dynamo" in sys.modules))
from unio4_lib.cli import main
sys.argv[0] = "unio4"
main()
"""


def test_no_run_needs_torchs_compiler(tmp_path: Path) -> None:
    """An optimizer of PyTorch's own imports it, for more than a second of every process that learns."""
    arguments = [*run_arguments(saved_recording(tmp_path), tmp_path / "runs"), "--quiet"]
    ended = subprocess.run([sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "False"
