"""From preset, task, file and command line to one checked configuration.

Later layers win: model defaults < preset < task (preset ``paper`` only) < file < ``--set`` < named options.
Every layer's keys are checked before they are merged, so that a message can say where the fault is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unio4_lib.config import RunConfig
from unio4_lib.config_keys import known_keys, known_sections, nearest_key
from unio4_lib.errors import DatasetNotSet, InputError
from unio4_lib.yaml_io import parse_yaml, read_yaml

PRESET_FOLDER = Path(__file__).parent / "presets"
PRESETS = ("quick", "standard", "paper")
DEFAULT_PRESET = "quick"
# Presets with a table of tasks; the others treat all datasets alike.
TASK_TABLES = {"paper": PRESET_FOLDER / "paper_tasks.yaml"}
SHOWN_LENGTH = 60

Settings = dict[str, Any]  # dotted key -> value


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration, where each value came from, and what the user should know about it."""

    config: RunConfig
    origins: dict[str, str]  # dotted key -> layer
    notes: tuple[str, ...]


def load_config(
    preset: str = DEFAULT_PRESET,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    seed: int | None = None,
) -> RunConfig:
    """The configuration of a run; InputError with one line if anything given is wrong."""
    return resolve_config(preset, file, overrides, dataset, seed).config


def resolve_config(
    preset: str = DEFAULT_PRESET,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    seed: int | None = None,
) -> Resolved:
    """As ``load_config``, with the origin of every value."""
    user_layers: list[tuple[str, Settings]] = []
    if file is not None:
        user_layers.append((str(file), _checked(read_yaml(Path(file)), str(file))))
    user_layers.extend((f"--set {text}", _override(text)) for text in overrides)
    if dataset is not None:
        user_layers.append(("--dataset", {"dataset": dataset}))
    if seed is not None:
        user_layers.append(("--seed", {"seed": seed}))

    layers = [(f"preset {preset}", _preset(preset))]
    notes: list[str] = []
    if preset in TASK_TABLES:
        named = [settings["dataset"] for _, settings in user_layers if "dataset" in settings]
        task = find_task(named[-1], preset) if named and isinstance(named[-1], str) else None
        if task is not None:
            layers.append((f"task {task}", task_table(preset)[task]))
        elif named:
            notes.append(
                f"no task of the {preset} preset fits dataset {named[-1]}: its general values are used"
            )
    return _merge([*layers, *user_layers], tuple(notes))


def _merge(layers: Sequence[tuple[str, Settings]], notes: tuple[str, ...]) -> Resolved:
    values: Settings = {}
    origins = dict.fromkeys(known_keys(), "default")
    for origin, settings in layers:
        values.update(settings)
        origins.update(dict.fromkeys(settings, origin))
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    try:
        return Resolved(RunConfig.model_validate(nested), origins, notes)
    except ValidationError as error:
        line = _one_line(error, origins)
        kind = DatasetNotSet if line.startswith("dataset is not set") else InputError
        raise kind(line) from None


def _one_line(error: ValidationError, origins: dict[str, str]) -> str:
    """The first fault: where it was set, what was found, what was expected."""
    fault = error.errors(include_url=False)[0]
    path = [part for part in fault["loc"] if isinstance(part, str)]
    name = next((key for key in (".".join(path), ".".join(path[:-1])) if key in known_keys()), None)
    if fault["type"] == "value_error":
        message = str(fault["ctx"]["error"])
        return _cross_field(message, origins) if name is None else f"{origins[name]}: {name}: {message}"
    if name is None:
        return f"{'.'.join(path)}: {fault['msg']}"
    if fault["type"] == "missing":
        return f"{name} is not set; expected --dataset (minari:, d4rl:, transitions: or collect:)"
    found = _shown(fault["input"])
    entry = f" entry {index}" if (index := fault["loc"][-1]) != path[-1] and isinstance(index, int) else ""
    return f"{origins[name]}: {name}{entry} is {found}; expected {known_keys()[name].expected}"


def _cross_field(message: str, origins: dict[str, str]) -> str:
    """Say which of the two values the user set: the model's message names the keys, not the layers."""
    named = [name for name in re.findall(r"[a-z_.]+[a-z]", message) if name in origins]
    culprit = next((origins[name] for name in named if _is_user_layer(origins[name])), None)
    return f"{culprit}: {message}" if culprit else message


def _is_user_layer(origin: str) -> bool:
    return origin != "default" and not origin.startswith(("preset ", "task "))


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "..."


def _override(text: str) -> Settings:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {text}: expected key=value, for example --set improve.steps=2000")
    name = name.strip()
    where = f"--set {text}"
    _check_name(name, where)
    # The dataset is text whatever it looks like; the rest is written as in YAML.
    return {name: value if name == "dataset" else parse_yaml(value, where)}


def _preset(preset: str) -> Settings:
    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: no such preset; expected one of {', '.join(PRESETS)}")
    return _checked(read_yaml(PRESET_FOLDER / f"{preset}.yaml"), f"preset {preset}")


def _checked(tree: Any, where: str) -> Settings:
    """Dotted settings of a parsed file, all of them known; values are checked later, once merged."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{where}: found {_kind(tree)}; expected keys and values, such as seed: 1")
    settings: Settings = {}
    for name, value in tree.items():
        if name not in known_sections():
            _check_name(str(name), where)
            settings[str(name)] = value
            continue
        if value is not None and not isinstance(value, dict):
            _check_name(name, where)
        for key, leaf in (value or {}).items():
            _check_name(f"{name}.{key}", where)
            settings[f"{name}.{key}"] = leaf
    return settings


def _check_name(name: str, where: str) -> None:
    if name in known_keys():
        return
    if name in known_sections():
        example = next(key for key in known_keys() if key.startswith(f"{name}."))
        raise InputError(f"{where}: {name} is a section; expected one of its keys, such as {example}")
    raise InputError(f"{where}: unknown key {name}; did you mean {nearest_key(name)}?")


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "a truth value"}.get(type(value), f"{value}")


def task_table(preset: str) -> dict[str, Settings]:
    """The settings of each task that the preset knows."""
    path = TASK_TABLES[preset]
    return {task: _checked(tree, f"{path.name}, {task}") for task, tree in read_yaml(path).items()}


def find_task(dataset: str, preset: str) -> str | None:
    """The task whose words all stand, in order, in the dataset's name; the longest one of several."""
    words = dataset_words(dataset)
    fitting = [task for task in task_table(preset) if _in_order(task.split("-"), words)]
    return max(fitting, key=lambda task: task.count("-"), default=None)


def dataset_words(dataset: str) -> list[str]:
    """The words of a dataset's name.

    >>> dataset_words("minari:mujoco/hopper/medium-replay-v0")
    ['mujoco', 'hopper', 'medium', 'replay', 'v0']

    Of a path only the last part counts: a folder may be called anything.
    """
    scheme, _, name = dataset.partition(":")
    if scheme in ("d4rl", "transitions"):
        name = Path(name.partition("?")[0]).name
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    remaining = iter(words)
    return all(word in remaining for word in wanted)
