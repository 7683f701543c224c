"""Who may import whom, and how large things may get."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from unio4_lib.methods.registry import DEFAULT, METHODS, find_method

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "unio4_lib"
CODE_FOLDERS = ("unio4_lib", "components", "pipelines", "benchmarks", "charts", "tests")

# Which room may import which. All may import the ground, which is the single modules of the package. An
# arrow that nothing uses fails, too: the table is the map of the house, its arrows go down or to the side.
ROOMS = {
    "cli": "runs bench methods stages report tracking serving sources artifacts learning nets data settings",
    "runs": "methods stages report tracking sources artifacts learning sim nets data settings",
    "bench": "methods stages judging artifacts learning sim nets data",
    "methods": "stages report judging learning sim nets data settings",
    "stages": "report tracking sources artifacts learning sim nets data settings",
    "report": "sim nets data settings",
    "tracking": "",
    "serving": "nets",
    "sources": "artifacts learning sim nets data settings",
    "artifacts": "",
    "judging": "learning sim nets settings",
    "learning": "sim nets data settings",
    "sim": "data",
    "nets": "settings",
    "data": "",
    "settings": "",
}
# Where numbers are made nobody sees the platform, at any distance.
ALGORITHMS = ("data", "judging", "learning", "nets", "settings", "sim")
PLATFORM = ("boto3", "botocore", "kfp", "mlflow", "typer", "unio4_lib.stages", "unio4_lib.tracking")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

Graph = dict[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, modules: set[str]) -> Iterator[str]:
    """What a module imports, in functions too; a name of ours is resolved to its module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in modules else base


def build_graph(folder: Path) -> Graph:
    paths = {module_name(path): path for path in folder.rglob("*.py")}
    return {
        name: {found for found in imports_of(ast.parse(path.read_text()), name, set(paths)) if found != name}
        for name, path in paths.items()
    }


def reach(graph: Graph, start: str) -> dict[str, str]:
    """Everything that ``start`` imports, directly or not, and by which module."""
    seen: dict[str, str] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for found in graph.get(module, ()):
            if found not in seen:
                seen[found] = module
                waiting.append(found)
    return seen


def room(module: str) -> str:
    """The room of a module; empty for the ground."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (LIBRARY / parts[-1]).is_dir() else ""


def arrows(graph: Graph) -> dict[str, set[str]]:
    """Which room imports which."""
    found: dict[str, set[str]] = {}
    for module, imported in graph.items():
        ours = {room(name) for name in imported if name.startswith("unio4_lib.")}
        found.setdefault(room(module), set()).update(ours - {"", room(module)})
    return found


def platform_in_sight(graph: Graph) -> list[str]:
    faults = []
    for module in graph:
        if room(module) in ALGORITHMS:
            for found, by in reach(graph, module).items():
                if any(found == name or found.startswith(f"{name}.") for name in PLATFORM):
                    faults.append(f"{module} reaches {found} by {by}")
    return faults


def cycles(graph: Graph) -> list[str]:
    return [module for module in graph if module in reach(graph, module)]


def code_files() -> list[Path]:
    return sorted(path for name in CODE_FOLDERS for path in (ROOT / name).rglob("*.py"))


def is_broad(handler: ast.ExceptHandler) -> bool:
    names = ast.walk(handler.type) if handler.type is not None else ()
    broad = any(isinstance(node, ast.Name) and node.id in ("Exception", "BaseException") for node in names)
    return handler.type is None or broad


def swallows(handler: ast.ExceptHandler) -> bool:
    only = handler.body[0]
    silent = isinstance(only, ast.Pass | ast.Continue)
    silent = silent or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant))
    return len(handler.body) == 1 and silent and is_broad(handler)


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Without what `from unio4_lib import train` reaches for: nothing in the house comes in by that door."""
    found = build_graph(LIBRARY)
    assert found.pop("unio4_lib") >= {"unio4_lib.runs.front"}
    return found


def test_arrows_between_rooms_are_those_of_the_table(graph: Graph) -> None:
    found = arrows(graph)
    assert found.pop("") == set(), "the ground knows no room"
    assert found == {name: set(below.split()) for name, below in ROOMS.items()}


def test_only_the_rooms_of_methods_know_their_names() -> None:
    """Nor the stages that only one of them has."""
    shared = {"prepare-dataset", "finetune-online", "report"}
    names = {name for name in METHODS if name != DEFAULT}
    names |= {step.name for name in METHODS for step in find_method(name).steps} - shared
    said = re.compile("|".join(rf"[\"'`]{re.escape(name)}[\"'`]" for name in sorted(names)))
    rooms = [path for path in LIBRARY.rglob("*.py") if room(module_name(path)) != "methods"]
    found = {str(path.relative_to(ROOT)): said.findall(path.read_text()) for path in rooms}
    # Of the critics' kinds one is called like the method that they come from; images are called like stages.
    assert {name for name, words in found.items() if words} == {
        "unio4_lib/learning/critics.py",
        "unio4_lib/runs/doctor.py",
        "unio4_lib/settings/model.py",
    }


def test_algorithms_do_not_know_the_platform(graph: Graph) -> None:
    assert platform_in_sight(graph) == []


def test_components_call_stages_only() -> None:
    allowed = {"unio4_lib", "unio4_lib.cli.component"}  # the first for its version
    for module, found in build_graph(ROOT / "components").items():
        ours = {name for name in found if name.startswith("unio4_lib")}
        assert not ours - allowed, module


def test_no_import_cycles(graph: Graph) -> None:
    assert cycles(graph) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_an_arrow_through_a_third_module_is_seen() -> None:
    graph: Graph = {"unio4_lib.nets.a": {"unio4_lib.b"}, "unio4_lib.b": {"mlflow.client"}}
    assert platform_in_sight(graph) == ["unio4_lib.nets.a reaches mlflow.client by unio4_lib.b"]
    assert arrows({"unio4_lib.nets.a": {"unio4_lib.sim.b", "unio4_lib.words"}}) == {"nets": {"sim"}}


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code_files()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    long = []
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_only_the_command_line_prints_and_exits() -> None:
    faults = []
    for path in LIBRARY.rglob("*.py"):
        if room(module_name(path)) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.exit", "exit"):
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert faults == []


def test_no_exception_is_swallowed() -> None:
    faults = []
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and swallows(node):
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert faults == []


@pytest.mark.parametrize(
    ("source", "swallowed"),
    [
        ("try: f()\nexcept Exception: pass", True),
        ("try: f()\nexcept: ...", True),
        ("try: f()\nexcept (ValueError, Exception): pass", True),
        ("try: f()\nexcept KeyError: pass", False),
        ("try: f()\nexcept Exception as e: g(e)", False),
    ],
)
def test_what_swallowing_is(source: str, swallowed: bool) -> None:
    handler = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler))
    assert swallows(handler) is swallowed


def test_nothing_is_unpickled(graph: Graph) -> None:
    """Files may come from anyone, and a pickle is a program."""
    assert [name for name, imported in graph.items() if {"pickle", "dill", "joblib"} & imported] == []
    readers = ("torch.load(", "allow_pickle=True", "read_pickle(")
    texts = {path.name: path.read_text() for path in LIBRARY.rglob("*.py")}
    assert [name for name, text in texts.items() if any(reader in text for reader in readers)] == []
