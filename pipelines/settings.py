"""What of a pipeline is fixed when it is compiled: images, resources, placement, secrets, retries."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.images import REGISTRY
from unio4_lib import __version__
from unio4_lib.errors import InputError
from unio4_lib.yaml_io import read_yaml

Component = Literal[
    "prepare-dataset",
    "clone-behavior",
    "fit-critics",
    "fit-dynamics",
    "improve-policy",
    "decide-finetuning",
    "finetune-online",
    "report",
    "close-run",
    "leaderboard",
]


class Closed(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Closed):
    """What one stage asks of the cluster."""

    cpu_request: str = "1"
    cpu_limit: str = "2"
    memory_request: str = "2Gi"
    memory_limit: str = "4Gi"
    accelerator: str | None = Field(None, description="Resource name, such as nvidia.com/gpu.")
    accelerators: int = Field(1, ge=1, description="How many, where accelerator is set.")
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    timeout_seconds: int = Field(86_400, ge=1)
    retries: int = Field(3, ge=0, description="After a preemption or a lost node; resumed from checkpoints.")
    scratch: str = Field("20Gi", description="Size limit of /tmp, where copies of artifacts are kept.")


LIGHT = Resources(cpu_request="250m", cpu_limit="1", memory_request="512Mi", memory_limit="2Gi")
STAGES: dict[Component, Resources] = {
    "prepare-dataset": Resources(memory_limit="8Gi"),
    "clone-behavior": Resources(),
    "fit-critics": Resources(),
    "fit-dynamics": Resources(),
    "improve-policy": Resources(),
    "decide-finetuning": LIGHT,
    "finetune-online": Resources(cpu_request="2", cpu_limit="4"),
    "report": Resources(),
    "close-run": LIGHT,
    "leaderboard": LIGHT,
}


class PipelineSettings(Closed):
    """Everything that is decided at compile time; parameters of a run are decided when it starts."""

    registry: str = REGISTRY
    tag: str = __version__
    stages: dict[Component, Resources] = {}
    environment: str = Field(
        "unio4-environment", description="ConfigMap that tells where S3 is; may be absent, and secrets win."
    )
    s3_secret: str = Field("unio4-s3", description="Secret with AWS_* variables; may be absent.")
    mlflow_secret: str = Field("unio4-mlflow", description="Secret with MLFLOW_* variables; may be absent.")
    parallel_members: int = Field(4, ge=1, description="Members of a sweep that run at a time.")

    @classmethod
    def load(cls, path: Path) -> "PipelineSettings":
        """Settings of a YAML file; what it does not say stays as it is."""
        try:
            return cls.model_validate(read_yaml(path) or {})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise InputError(f"{path}: {place}: {fault['msg']}") from None

    def resources(self, component: Component) -> Resources:
        """What a component gets."""
        return self.stages.get(component, STAGES[component])
