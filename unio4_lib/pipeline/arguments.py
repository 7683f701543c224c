"""The parameters of the compiled pipelines, from what a user asked for: on this machine and on a cluster."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from unio4_lib.config import RunConfig
from unio4_lib.config_io import load_config
from unio4_lib.config_keys import known_keys
from unio4_lib.pipeline.spec import PipelineSpec, Values
from unio4_lib.stages.sweep import Member
from unio4_lib.tracking.tracker import without_password


@dataclass(frozen=True)
class Asked:
    """What one run and all members of a sweep are told alike."""

    spec: PipelineSpec
    config: RunConfig
    preset: str
    artifact_root: str | None
    tracking: str | None
    experiment: str
    finetune: str
    reuse: bool
    needs: Values = field(default_factory=dict)

    def of_run(self, run_name: str) -> Values:
        """The parameters of one run."""
        own = {"dataset": self.config.dataset, "seed": self.config.seed, "run_name": run_name}
        return self._with(own, [self.config.dataset])

    def of_member(self, member: Member) -> Values:
        """The parameters of a run that is a member of a sweep."""
        own = {"dataset": member.dataset, "seed": member.seed, "run_name": "", "sweep": member.sweep}
        return self._with(own, [member.dataset])

    def of_sweep(self, name: str, members: list[Values]) -> Values:
        """The parameters of a sweep; each member is a dataset and a seed."""
        return self._with({"sweep": name, "members": members}, [member["dataset"] for member in members])

    def _with(self, own: Values, datasets: Iterable[str]) -> Values:
        given = {
            **own,
            "preset": self.preset,
            "overrides": overrides(self.config, self.preset),
            "experiment": self.experiment,
            "finetune": self.finetune,
            "reuse": self.reuse,
            **self.needs,
        }
        # A pipeline of a chart knows its own places.
        shown = None if self.tracking is None else without_password(self.tracking)
        places = {"artifact_root": self.artifact_root, "mlflow_tracking_uri": shown}
        given |= {name: place for name, place in places.items() if place is not None}
        # Collecting a dataset trains a policy: it runs where PyTorch and everything else is.
        if any(dataset.startswith("collect:") for dataset in datasets):
            given["prepare_image"] = self.spec.image("finetune-online")
        self.spec.arguments(given)  # a pipeline that was compiled elsewhere may take others
        return given


def overrides(config: RunConfig, preset: str) -> list[str]:
    """What a configuration says beyond its preset, as the pipeline takes it."""
    base = _flat(load_config(preset, dataset=config.dataset, seed=config.seed))
    values = _flat(config)
    return [f"{name}={json.dumps(values[name])}" for name in known_keys() if values[name] != base[name]]


def _flat(config: RunConfig) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    values = {}
    for name in known_keys():
        section, _, key = name.rpartition(".")
        values[name] = tree[section][key] if section else tree[key]
    return values
