"""The code that a stage's result depends on: its module, and all that this imports, at any distance."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import unio4_lib

PACKAGE = unio4_lib.__name__
ROOT = Path(unio4_lib.__file__).parent.parent
# What carries numbers and shows them decides about none: it may change, and artifacts stay good.
CARRIERS = (
    *("artifacts", "cli", "runs", "serving", "tracking"),
    *("errors", "files", "progress", "words"),
    *("report.facts", "report.part", "report.summary"),
    *("settings.keys", "settings.layers", "settings.pages", "settings.yaml_io"),
    *("stages.code", "stages.context", "stages.fingerprint", "stages.outcome"),
    *("stages.runner", "stages.step", "stages.tracked"),
)


@cache
def code_version(module: str) -> str:
    """Digest of the release and of the source of a stage's module with all that it imports."""
    state = hashlib.sha256(unio4_lib.__version__.encode())
    for name in sorted(closure(module)):
        state.update(f"{name}\n".encode())
        state.update(_path(name).read_bytes())
    return state.hexdigest()


def closure(module: str) -> set[str]:
    """Modules of this package that a module imports, directly or not, and itself; carriers left out."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in imports_of(name) if not _carries(other)]
    return found


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of this package that a module imports, in functions, too."""
    return frozenset(_imported(ast.parse(_path(module).read_bytes())))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if _path(name).is_file() else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)


def _carries(module: str) -> bool:
    name = module.removeprefix(PACKAGE).removeprefix(".")
    return not name or any(name == carrier or name.startswith(f"{carrier}.") for carrier in CARRIERS)


def _path(module: str) -> Path:
    place = ROOT / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
