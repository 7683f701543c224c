"""The parameters of the compiled pipelines, from what a user asked for: on this machine and on a cluster."""

import json
from dataclasses import dataclass, field

from unio4_lib.methods.configs import load_config, method_of
from unio4_lib.methods.registry import DEFAULT
from unio4_lib.runs.spec import PipelineSpec, Values
from unio4_lib.settings.keys import flat_settings
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.sweep import Member
from unio4_lib.tracking.address import without_password


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
        return self._with(own)

    def of_member(self, member: Member) -> Values:
        """The parameters of a run that is a member of a sweep."""
        own = {"dataset": member.dataset, "seed": member.seed, "run_name": "", "sweep": member.sweep}
        return self._with(own)

    def _with(self, own: Values) -> Values:
        method_of(self.config).check_choice(self.finetune)
        given = {
            **own,
            "preset": self.preset,
            "overrides": overrides(self.config, self.preset),
            "experiment": self.experiment,
            "finetune": self.finetune,
            "reuse": self.reuse,
            **self.needs,
        }
        if self.config.method != DEFAULT:  # which a pipeline that was compiled long ago takes for granted
            given["method"] = self.config.method
        # A pipeline of a chart knows its own places.
        shown = None if self.tracking is None else without_password(self.tracking)
        places = {"artifact_root": self.artifact_root, "mlflow_tracking_uri": shown}
        given |= {name: place for name, place in places.items() if place is not None}
        # Collecting a dataset trains a policy: it runs where PyTorch and everything else is.
        if str(own["dataset"]).startswith("collect:"):
            given["prepare_image"] = self.spec.image("finetune-online")
        self.spec.arguments(given)  # a pipeline that was compiled elsewhere may take others
        return given


def overrides(config: RunConfig, preset: str) -> list[str]:
    """What a configuration says beyond its preset, as the pipeline takes it."""
    preset_alone = load_config(preset, dataset=config.dataset, seed=config.seed, method=config.method)
    base, values = (flat_settings(one.model_dump(mode="json")) for one in (preset_alone, config))
    return [f"{name}={json.dumps(value)}" for name, value in values.items() if value != base[name]]
