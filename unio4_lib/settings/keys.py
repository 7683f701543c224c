"""What can be set: every dotted key of a run with its type, range, default and meaning in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from unio4_lib.settings.model import RunConfig, StageConfig

TYPE_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
BOUND_WORDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting."""

    name: str  # dotted
    expected: str  # type and range in words
    default: Any  # None with required=True: there is none
    required: bool
    meaning: str


@cache
def known_keys(model: type[RunConfig]) -> dict[str, Key]:
    """All settings of a method's runs by dotted name, in the order of the models."""
    return {key.name: key for key in _walk(model, "")}


@cache
def known_sections(model: type[RunConfig]) -> dict[str, type[StageConfig]]:
    """The parts of a run: name of the section and its model."""
    sections: dict[str, type[StageConfig]] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, StageConfig):
            sections[name] = field.annotation
    return sections


def flat_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of settings as ``model_dump`` or a file has them."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _walk(model: type[StageConfig], prefix: str) -> Iterator[Key]:
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, StageConfig):
            yield from _walk(field.annotation, f"{prefix}{name}.")
            continue
        required = field.is_required()
        yield Key(
            name=prefix + name,
            expected=_words(schema[name]),
            default=None if required else field.default,
            required=required,
            meaning=field.description or "",
        )


def _words(schema: dict[str, Any]) -> str:
    """Type and range of a JSON schema, as a person would say it."""
    if "anyOf" in schema:
        return " or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema["type"] == "null":
        return "null"
    if schema["type"] == "array":
        return f"a list of at least one entry, each {_words(schema['items'])}"
    bounds = [f"{word} {schema[name]:g}" for name, word in BOUND_WORDS.items() if name in schema]
    return " ".join([TYPE_WORDS[schema["type"]], " and ".join(bounds)]).strip()


def nearest_key(wrong: str, model: type[RunConfig]) -> str:
    """The valid key or section most like ``wrong``.

    A key given without its section, or under another one, is found by its last word; a little less
    sure than a match of the whole, hence the factor.
    """

    def likeness(name: str) -> float:
        whole = SequenceMatcher(None, wrong, name).ratio()
        last = SequenceMatcher(None, wrong.rpartition(".")[2], name.rpartition(".")[2]).ratio()
        return max(whole, 0.9 * last + 0.1 * whole)

    sections = () if "." in wrong else known_sections(model)  # a key was meant
    return max([*known_keys(model), *sections], key=likeness)
