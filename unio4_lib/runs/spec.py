"""A compiled KFP pipeline as a local run needs it: tasks, what they wait for, where their inputs are.

Read from the YAML that KFP's compiler wrote and that a cluster runs, so there is one definition of the graph.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unio4_lib.errors import InputError

COMPILED = Path(__file__).parents[1] / "compiled"  # a link to pipelines/compiled, which a wheel has as files
PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
SELECTOR = re.compile(r'parseJson\(string_value\)\["([^"]+)"\]')
COMPARISON = re.compile(r"inputs\.parameter_values\['([^']+)'\] == ('[^']*'|true|false|-?[0-9.]+)")

Values = dict[str, Any]


@dataclass
class Scope:
    """What tasks of one graph can refer to: the graph's inputs, and the outputs of finished tasks."""

    parameters: Values
    artifacts: Values
    outputs: dict[str, "Outputs"] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


@dataclass
class Outputs:
    """What a task gave back."""

    parameters: Values = field(default_factory=dict)
    artifacts: Values = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineSpec:
    """A compiled pipeline."""

    name: str
    root: Values
    components: Values
    executors: Values

    @classmethod
    def load(cls, path: Path) -> "PipelineSpec":
        """Read a compiled pipeline."""
        try:
            return cls.of(next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); expected a pipeline") from error
        except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
            raise InputError(
                f"{path}: not a compiled KFP pipeline; expected the output of make pipelines"
            ) from error

    @classmethod
    def of(cls, document: Values) -> "PipelineSpec":
        """The pipeline of a parsed document, the first one of a compiled file."""
        return cls(
            document["pipelineInfo"]["name"],
            document["root"],
            document["components"],
            document["deploymentSpec"]["executors"],
        )

    def container(self, component: Values) -> Values:
        """Image and command of a component that is no graph."""
        found: Values = self.executors[component["executorLabel"]]["container"]
        return found

    def image(self, component: str) -> str:
        """The image of a component."""
        found: str = self.executors[f"exec-{component}"]["container"]["image"]
        return found

    def stages(self) -> dict[str, str]:
        """All tasks that are no graphs: the name in the pipeline, and the name for people."""
        graphs = [one["dag"]["tasks"] for one in (self.root, *self.components.values()) if "dag" in one]
        return {
            name: task["taskInfo"]["name"]
            for tasks in graphs
            for name, task in tasks.items()
            if "dag" not in self.components[task["componentRef"]["name"]]
        }

    def arguments(self, given: Values) -> Values:
        """All parameters of the pipeline, checked."""
        known = self.root.get("inputDefinitions", {}).get("parameters", {})
        for name in given:
            if name not in known:
                raise InputError(f"pipeline {self.name}: no parameter {name}; expected {', '.join(known)}")
        for name, definition in known.items():
            if name not in given and "defaultValue" not in definition:
                raise InputError(f"pipeline {self.name}: parameter {name} is not set")
        return with_defaults(known, given)


def compiled(name: str) -> Path:
    """The compiled pipeline of a name."""
    return COMPILED / f"{name}.yaml"


def with_defaults(definitions: Values, given: Values) -> Values:
    """Parameters of a component; whole numbers come as such, whatever YAML made of them."""
    values = {}
    for name, definition in definitions.items():
        if name not in given and "defaultValue" not in definition:
            continue
        value = given[name] if name in given else definition["defaultValue"]
        whole = definition["parameterType"] == "NUMBER_INTEGER" and value is not None
        values[name] = int(value) if whole else value
    return values


def fill(text: str, parameters: Values) -> str:
    """A text with its placeholders replaced."""

    def value(match: re.Match[str]) -> str:
        found = parameters[match.group(1)]
        return found if isinstance(found, str) else json.dumps(found)

    return PLACEHOLDER.sub(value, text)


def inputs_of(task: Values, scope: Scope) -> tuple[Values, Values]:
    """Parameters and artifacts that a task takes."""
    wanted = task.get("inputs", {})
    parameters = {name: _parameter(source, scope) for name, source in wanted.get("parameters", {}).items()}
    parameters = {
        name: fill(value, parameters) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
    artifacts = {name: _artifact(source, scope) for name, source in wanted.get("artifacts", {}).items()}
    return parameters, artifacts


def _parameter(source: Values, scope: Scope) -> Any:
    if "runtimeValue" in source:
        value = source["runtimeValue"]["constant"]
    elif "componentInputParameter" in source:
        value = scope.parameters[source["componentInputParameter"]]
    elif "taskOutputParameter" in source:
        place = source["taskOutputParameter"]
        value = scope.outputs[place["producerTask"]].parameters[place["outputParameterKey"]]
    elif "taskFinalStatus" in source:
        return _final_status(source["taskFinalStatus"]["producerTask"], scope)
    else:
        raise InputError(f"a local run does not know parameters from {', '.join(source)}")
    if "parameterExpressionSelector" in source:
        selector = SELECTOR.fullmatch(source["parameterExpressionSelector"])
        if selector is None:
            raise InputError(f"a local run does not know {source['parameterExpressionSelector']}")
        value = value[selector.group(1)]
    return value


def _final_status(task: str, scope: Scope) -> Values:
    state = scope.states[task]
    return {
        "state": {"succeeded": "SUCCEEDED", "stopped": "CANCELLED"}.get(state, "FAILED"),
        "pipelineTaskName": task,
        "error": {} if state == "succeeded" else {"code": 1, "message": state},
    }


def _artifact(source: Values, scope: Scope) -> Any:
    if "componentInputArtifact" in source:
        return scope.artifacts[source["componentInputArtifact"]]
    place = source["taskOutputArtifact"]
    return scope.outputs[place["producerTask"]].artifacts[place["outputArtifactKey"]]


def holds(condition: str, parameters: Values) -> bool:
    """Whether a condition of ``dsl.If`` or ``dsl.Else`` is true."""
    results = []
    for part in condition.split(" && "):
        negated = part.startswith("!(") and part.endswith(")")
        found = COMPARISON.fullmatch(part[2:-1] if negated else part)
        if found is None:
            raise InputError(f"a local run does not know the condition {part}")
        name, literal = found.groups()
        expected = literal[1:-1] if literal.startswith("'") else json.loads(literal)
        results.append((parameters[name] == expected) is not negated)
    return all(results)


def items_of(task: Values, parameters: Values) -> tuple[str, list[Any]]:
    """Of a loop: the name that an item has inside, and the items."""
    iterator = task["parameterIterator"]
    items = iterator["items"]
    found = json.loads(items["raw"]) if "raw" in items else parameters[items["inputParameter"]]
    return iterator["itemInput"], found
