"""The READMEs of the components, written from their signatures."""

import inspect
import re
from importlib import import_module
from pathlib import Path

from kfp.dsl.python_component import PythonComponent
from kfp.dsl.types.type_annotations import OutputAnnotation

import components
from pipelines.settings import PipelineSettings, Resources

FOLDER = Path(components.__file__).parent
COMPONENTS: dict[str, PythonComponent] = {
    path.parent.name: getattr(import_module(f"components.{path.parent.name}.component"), path.parent.name)
    for path in sorted(FOLDER.glob("*/component.py"))
}
ENTRY = re.compile(r"^ {4}(\w+): (.+)$", flags=re.MULTILINE)


def readme(name: str) -> str:
    """The page of one component: what it does, takes, gives and asks of the cluster."""
    function = COMPONENTS[name].python_func
    text = inspect.getdoc(function) or ""
    stage = name.replace("_", "-")
    meanings = dict(ENTRY.findall(text))
    lines = [f"# {stage}", "", text.partition("\n")[0], ""]
    lines += ["| Parameter | Kind | Meaning |", "|---|---|---|"]
    for parameter in inspect.signature(function).parameters.values():
        lines.append(f"| `{parameter.name}` | {_kind(parameter)} | {meanings[parameter.name]} |")
    if "Returns:" in text:
        lines += ["", f"Returns: {text.partition('Returns:')[2].strip()}"]
    lines += ["", *_resources(stage), ""]
    return "\n".join(lines)


def _kind(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation in (str, int, bool, list):
        return str(annotation.__name__)
    origin = getattr(annotation, "__metadata__", None)
    if origin is None:
        return "final status of the stages"
    artifact = annotation.__origin__.__name__
    direction = "output" if origin[0] is OutputAnnotation else "input"
    optional = ", optional" if parameter.default is not inspect.Parameter.empty else ""
    return f"{direction} {artifact}{optional}"


def _resources(stage: str) -> list[str]:
    wanted: Resources = PipelineSettings().resources(stage)  # type: ignore[arg-type]
    return [
        f"Asks for {wanted.cpu_request} to {wanted.cpu_limit} CPU and {wanted.memory_request} to "
        f"{wanted.memory_limit} of memory; tried again {wanted.retries} times.",
    ]


def write_all() -> None:
    """Write every README."""
    for name in COMPONENTS:
        (FOLDER / name / "README.md").write_text(readme(name))
