"""Who takes part in a tournament: methods whose offline stage needs the dataset alone.

The judge's own networks take the place of theirs: so a policy must act by one network.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.report.facts import Facts
from unio4_lib.report.part import Part
from unio4_lib.settings.keys import flat_settings
from unio4_lib.settings.model import RunConfig
from unio4_lib.settings.pages import yaml_value
from unio4_lib.stages.step import DATASET, OFFLINE, Step

BETWEEN = re.compile(r",(?![^\[]*\])")  # settings of one entrant; not the numbers of a list
SHARED = ("device", "checkpoint_seconds", "prepare", "train")  # what all take from the tournament


@dataclass(frozen=True)
class Entrant:
    """One method with its settings."""

    label: str
    config: RunConfig
    step: Step  # that makes its policy


class Entered(Part):
    """What is told of an entrant."""

    label: str
    method: str = ""
    artifact_digest: str = ""


class EntrantsFacts(Facts):
    """Who took part, in the order of the judge."""

    entrants: list[Entered] = Field([])


def entrants_of(labels: Sequence[str], config: UniO4Config) -> list[Entrant]:
    """All of them, each with settings as its own run would have them."""
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"entrants has {twice} twice; expected each once")
    return [_entrant(label, config) for label in labels]


def able() -> list[str]:
    """Names of the methods that can take part."""
    return [name for name in METHODS if _step(name) is not None]


def _entrant(label: str, config: UniO4Config) -> Entrant:
    name, _, told = label.partition(":")
    step = _step(name) if name in METHODS else None
    if step is None:
        raise InputError(f"entrants has {label}; expected names of {', '.join(able())}")
    values = config.model_dump(mode="json", include=set(SHARED))
    given = [f"{key}={yaml_value(value)}" for key, value in flat_settings(values).items()]
    given.append(f"{name}.hidden={yaml_value(config.behavior.hidden)}")
    given += [f"{name}.{part}" for part in BETWEEN.split(told) if part]
    try:
        found = load_config(overrides=given, dataset=config.dataset, seed=config.seed, method=name)
    except InputError as error:
        raise InputError(f"entrants has {label}: {error}") from error
    shape = list(getattr(found, name).hidden), "relu"
    wanted = list(config.behavior.hidden), config.behavior.activation
    if shape != wanted:
        raise InputError(
            f"entrants has {label}: widths {shape[0]} with {shape[1]}; expected those of the clones, "
            f"{wanted[0]} with {wanted[1]} (behavior.hidden and activation)"
        )
    return Entrant(label, found, step)


def _step(name: str) -> Step | None:
    """The step that makes the offline policy from the dataset alone, where a method has one."""
    method = find_method(name)
    if method.composite:
        return None
    made = (step for step in method.steps if step.kind == OFFLINE)
    return next((step for step in made if step.inputs == (DATASET,)), None)
