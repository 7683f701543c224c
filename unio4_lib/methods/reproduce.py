"""One command that gives the same run again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from unio4_lib.errors import InputError
from unio4_lib.methods.method import Method
from unio4_lib.settings.keys import flat_settings
from unio4_lib.settings.layers import Layers, resolve

DEFAULT = "unio4"
FROM_FILE = "unio4 run --config config.yaml"  # the file lies beside every run


def reproduce_command(method: Method, config: Mapping[str, Any]) -> str:
    """The preset that needs the fewest words, and what differs from it."""
    wanted = flat_settings(config)
    dataset, seed = wanted.get("dataset"), wanted.get("seed")
    if not isinstance(dataset, str) or not isinstance(seed, int):
        return FROM_FILE
    best: tuple[str, dict[str, Any]] | None = None
    for preset in method.presets_of().names:
        differences = _differences(method, wanted, preset, dataset, seed)
        if differences is None:
            return FROM_FILE
        if best is None or len(differences) < len(best[1]):
            best = preset, differences
    assert best is not None
    preset, differences = best
    named = [] if method.name == DEFAULT else ["--method", method.name]
    words = ["unio4", "run", *named, "--dataset", dataset, "--preset", preset, "--seed", str(seed)]
    lines = [shlex.join(words)]
    lines += [f"--set {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in differences.items()]
    return " \\\n  ".join(lines)


def _differences(
    method: Method, wanted: dict[str, Any], preset: str, dataset: str, seed: int
) -> dict[str, Any] | None:
    """What has to be set besides the preset; None where the settings are of another release."""
    try:
        given = Layers(dataset=dataset, seed=seed, method=method.name)
        base = resolve(method.settings, method.presets_of(), preset, given).config
    except InputError:
        return None
    offered = flat_settings(base.model_dump(mode="json"))
    if offered.keys() != wanted.keys():
        return None
    return {name: value for name, value in wanted.items() if offered[name] != value}
