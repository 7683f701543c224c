"""From preset, task, file and command line to one checked configuration.

Later layers win: model defaults < preset < task (preset ``paper`` only) < file < ``--set`` < named options.
Every layer's keys are checked before they are merged, so that a message can say where the fault is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unio4_lib.errors import DatasetNotSet, InputError
from unio4_lib.settings.keys import Key, known_keys, known_sections, nearest_key
from unio4_lib.settings.model import RunConfig
from unio4_lib.settings.yaml_io import parse_yaml, read_yaml

PRESETS = ("quick", "standard", "paper")
DEFAULT_PRESET = "quick"
SHOWN_LENGTH = 60

Settings = dict[str, Any]  # dotted key -> value


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration, where each value came from, and what the user should know about it."""

    config: RunConfig
    origins: dict[str, str]  # dotted key -> layer
    notes: tuple[str, ...]


class Layers:
    """The layers of one run's settings, read before it is known of which method they are."""

    def __init__(
        self,
        file: str | Path | None = None,
        overrides: Sequence[str] = (),
        **named: Any,
    ) -> None:
        self.file = None if file is None else (str(file), read_yaml(Path(file)))
        self.overrides = [_override(text) for text in overrides]
        # The dataset is text whatever it looks like, and None is not given.
        self.named = {name: value for name, value in named.items() if value is not None}

    def last(self, name: str) -> Any:
        """What the last layer says that speaks of a key at the top; None where none does."""
        tree = self.file[1] if self.file is not None and isinstance(self.file[1], dict) else {}
        found = [tree.get(name), *(value for _, key, value in self.overrides if key == name)]
        found.append(self.named.get(name))
        return next((value for value in reversed(found) if value is not None), None)

    def of(self, model: type[RunConfig]) -> list[tuple[str, Settings]]:
        """Each layer with where it is from, its keys checked."""
        layers: list[tuple[str, Settings]] = []
        if self.file is not None:
            where, tree = self.file
            layers.append((where, _checked(tree, where, model)))
        for where, key, value in self.overrides:
            _check_name(key, where, model)
            layers.append((where, {key: value}))
        return layers + [(f"--{name}", {name: value}) for name, value in self.named.items()]


@dataclass(frozen=True)
class Presets:
    """The presets of a method: folders of YAML files; the first has all of them, later ones add to some."""

    folders: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """The presets, the quickest first."""
        return [name for name in PRESETS if (self.folders[0] / f"{name}.yaml").is_file()]

    def tasks(self, preset: str, model: type[RunConfig]) -> dict[str, Settings]:
        """The settings of each task that a preset knows; most know none."""
        paths = [folder / f"{preset}_tasks.yaml" for folder in self.folders]
        return {
            task: _checked(tree, f"{path.name}, {task}", model)
            for path in paths
            if path.is_file()
            for task, tree in read_yaml(path).items()
        }

    def settings(self, preset: str, model: type[RunConfig]) -> Settings:
        """What a preset says."""
        if preset not in self.names:
            raise InputError(f"--preset {preset}: no such preset; expected one of {', '.join(self.names)}")
        found: Settings = {}
        for path in (folder / f"{preset}.yaml" for folder in self.folders):
            if path.is_file():
                found |= _checked(read_yaml(path), f"preset {preset}", model)
        return found


def resolve(model: type[RunConfig], presets: Presets, preset: str, given: Layers) -> Resolved:
    """One checked configuration; InputError with one line if anything given is wrong."""
    layers = [(f"preset {preset}", presets.settings(preset, model))]
    user_layers = given.of(model)
    notes: list[str] = []
    if tasks := presets.tasks(preset, model):
        named = given.last("dataset")
        task = find_task(named, tasks) if isinstance(named, str) else None
        if task is not None:
            layers.append((f"task {task}", tasks[task]))
        elif named is not None:
            notes.append(f"no task of the {preset} preset fits dataset {named}: its general values are used")
    return _merge(model, [*layers, *user_layers], tuple(notes))


def _merge(
    model: type[RunConfig], layers: Sequence[tuple[str, Settings]], notes: tuple[str, ...]
) -> Resolved:
    values: Settings = {}
    origins = dict.fromkeys(known_keys(model), "default")
    for origin, settings in layers:
        values.update(settings)
        origins.update(dict.fromkeys(settings, origin))
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    try:
        return Resolved(model.model_validate(nested), origins, notes)
    except ValidationError as error:
        line = _one_line(error, origins, known_keys(model))
        kind = DatasetNotSet if line.startswith("dataset is not set") else InputError
        raise kind(line) from None


def _one_line(error: ValidationError, origins: dict[str, str], keys: Mapping[str, Key]) -> str:
    """The first fault: where it was set, what was found, what was expected."""
    fault = error.errors(include_url=False)[0]
    path = [part for part in fault["loc"] if isinstance(part, str)]
    name = next((key for key in (".".join(path), ".".join(path[:-1])) if key in keys), None)
    if fault["type"] == "value_error":
        message = str(fault["ctx"]["error"])
        return _cross_field(message, origins) if name is None else f"{origins[name]}: {name}: {message}"
    if name is None:
        return f"{'.'.join(path)}: {fault['msg']}"
    if fault["type"] == "missing":
        return f"{name} is not set; expected --dataset (minari:, d4rl:, transitions: or collect:)"
    found = _shown(fault["input"])
    entry = f" entry {index}" if (index := fault["loc"][-1]) != path[-1] and isinstance(index, int) else ""
    return f"{origins[name]}: {name}{entry} is {found}; expected {keys[name].expected}"


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


def _override(text: str) -> tuple[str, str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {text}: expected key=value, for example --set improve.steps=2000")
    name = name.strip()
    where = f"--set {text}"
    # The dataset is text whatever it looks like; the rest is written as in YAML.
    return where, name, value if name == "dataset" else parse_yaml(value, where)


def _checked(tree: Any, where: str, model: type[RunConfig]) -> Settings:
    """Dotted settings of a parsed file, all of them known; values are checked later, once merged."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{where}: found {_kind(tree)}; expected keys and values, such as seed: 1")
    settings: Settings = {}
    for name, value in tree.items():
        if name not in known_sections(model):
            _check_name(str(name), where, model)
            settings[str(name)] = value
            continue
        if value is not None and not isinstance(value, dict):
            _check_name(name, where, model)
        for key, leaf in (value or {}).items():
            _check_name(f"{name}.{key}", where, model)
            settings[f"{name}.{key}"] = leaf
    return settings


def _check_name(name: str, where: str, model: type[RunConfig]) -> None:
    if name in known_keys(model):
        return
    if name in known_sections(model):
        example = next(key for key in known_keys(model) if key.startswith(f"{name}."))
        raise InputError(f"{where}: {name} is a section; expected one of its keys, such as {example}")
    raise InputError(f"{where}: unknown key {name}; did you mean {nearest_key(name, model)}?")


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "a truth value"}.get(type(value), f"{value}")


def find_task(dataset: str, tasks: Mapping[str, Settings]) -> str | None:
    """The task whose words all stand, in order, in the dataset's name; the longest one of several."""
    words = dataset_words(dataset)
    fitting = [task for task in tasks if _in_order(task.split("-"), words)]
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
