"""Who may import whom, and how large things may get."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "unio4_lib"
CODE_FOLDERS = ("unio4_lib", "components", "pipelines", "benchmarks", "charts", "tests")

# Useful without Kubernetes, without a tracker, without a store.
ALGORITHMS = ("offline", "online", "nets", "sim", "data")
OUT_OF_THEIR_SIGHT = (
    "unio4_lib.artifacts",
    "unio4_lib.cli",
    "unio4_lib.cli_component",
    "unio4_lib.cli_dataset",
    "unio4_lib.cli_report",
    "unio4_lib.cli_summary",
    "unio4_lib.doctor",
    "unio4_lib.pipeline",
    "unio4_lib.report",
    "unio4_lib.run",
    "unio4_lib.serving",
    "unio4_lib.stages",
    "unio4_lib.tracking",
    "boto3",
    "botocore",
    "kfp",
    "mlflow",
    "typer",
)
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


def forbidden_arrows(graph: Graph) -> list[str]:
    faults = []
    for module in graph:
        if module.split(".")[1:2] and module.split(".")[1] in ALGORITHMS:
            for found, by in reach(graph, module).items():
                if any(found == name or found.startswith(f"{name}.") for name in OUT_OF_THEIR_SIGHT):
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
    return build_graph(LIBRARY)


def test_algorithms_do_not_know_the_platform(graph: Graph) -> None:
    assert forbidden_arrows(graph) == []


def test_components_call_stages_only() -> None:
    allowed = {"unio4_lib", "unio4_lib.cli_component"}  # the first for its version
    for module, found in build_graph(ROOT / "components").items():
        ours = {name for name in found if name.startswith("unio4_lib")}
        assert not ours - allowed, module


def test_no_import_cycles(graph: Graph) -> None:
    assert cycles(graph) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_an_arrow_through_a_third_module_is_seen() -> None:
    graph: Graph = {"unio4_lib.nets.a": {"unio4_lib.b"}, "unio4_lib.b": {"mlflow.client"}}
    assert forbidden_arrows(graph) == ["unio4_lib.nets.a reaches mlflow.client by unio4_lib.b"]


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
        if path.name.startswith("cli"):
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
