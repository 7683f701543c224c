"""All artifacts of one tiny run, and stages that are asked to end in their middle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_runs import SETTINGS

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.learning.journal import Preemption
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.runner import run_stage

STAGES = find_method("unio4").steps
STAGE_NAMES = tuple(stage.name for stage in STAGES)
find_stage = find_method("unio4").step
# Those that write checkpoints.
TRAINING = ("clone-behavior", "fit-critics", "fit-dynamics", "improve-policy", "finetune-online")


def tiny_config(dataset: str, **changed: Any) -> UniO4Config:
    """Settings of a run of a second; ``changed`` names settings with __ for the dot."""
    values = SETTINGS | {name.replace("__", "."): value for name, value in changed.items()}
    return load_config(dataset=dataset, overrides=[f"{k}={json.dumps(v)}" for k, v in values.items()])


def all_artifacts(config: UniO4Config, root: Path | str) -> dict[str, ArtifactRef]:
    """Every stage in turn, without interruption."""
    refs: dict[str, ArtifactRef] = {}
    with StageContext(root) as context:
        for stage in STAGES:
            refs[stage.kind] = run_stage(stage, config, inputs_of(stage.inputs, refs), context).ref
    return refs


def inputs_of(kinds: tuple[str, ...], refs: Mapping[str, ArtifactRef]) -> dict[str, ArtifactRef]:
    return {kind: refs[kind] for kind in kinds}


class AskedToEnd(Preemption):
    """As if a signal came when it has been looked for so many times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self.looks -= 1
        return self.looks < 0
