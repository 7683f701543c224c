"""The settings of a run: first its method is found, then everything else is read as that method has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unio4_lib.errors import InputError
from unio4_lib.methods.method import Method
from unio4_lib.methods.registry import DEFAULT, METHODS, find_method
from unio4_lib.settings.layers import DEFAULT_PRESET, Layers, Resolved, resolve
from unio4_lib.settings.model import RunConfig
from unio4_lib.settings.pages import reference_page


def load_config(
    preset: str = DEFAULT_PRESET,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    seed: int | None = None,
    method: str | None = None,
) -> RunConfig:
    """The configuration of a run; InputError with one line if anything given is wrong."""
    return resolve_config(preset, file, overrides, dataset, seed, method).config


def resolve_config(
    preset: str = DEFAULT_PRESET,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    seed: int | None = None,
    method: str | None = None,
) -> Resolved:
    """As ``load_config``, with the origin of every value."""
    given = Layers(file, overrides, dataset=dataset, seed=seed, method=method)
    found = find_method(_name(given.last("method") or DEFAULT))
    return resolve(found.settings, found.presets_of(), preset, given)


def read_config(values: dict[str, Any]) -> RunConfig:
    """A configuration from what its ``model_dump`` gave, as JSON has it."""
    return method_named(values).settings.model_validate(values, strict=False)


def method_of(config: RunConfig) -> Method:
    """The method of a configuration."""
    return find_method(config.method)


def method_named(values: dict[str, Any]) -> Method:
    """The method of settings or a summary as plain values; the first one where an old run names none."""
    return find_method(_name(values.get("method", DEFAULT)))


def _name(found: object) -> str:
    if not isinstance(found, str) or found not in METHODS:
        raise InputError(f"method is {found!r}; expected one of {', '.join(METHODS)}")
    return found


def settings_page() -> str:
    """The documentation's page of all settings."""
    methods = [find_method(name) for name in METHODS]
    return reference_page([(one.about, one.settings, one.presets_of()) for one in methods])
