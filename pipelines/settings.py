"""What of a pipeline is fixed when it is compiled: images, resources, placement, secrets, retries."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.images import REGISTRY
from unio4_lib import __version__
from unio4_lib.errors import InputError
from unio4_lib.settings.yaml_io import read_yaml

Component = Literal[
    "prepare-dataset",
    "clone-behavior",
    "fit-critics",
    "fit-dynamics",
    "improve-policy",
    "train-offline",
    "train-entrants",
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
    """What one stage asks of the cluster; little, because three run side by side, on two cores too."""

    cpu_request: str = "500m"
    cpu_limit: str = "4"
    memory_request: str = "2Gi"
    memory_limit: str = "8Gi"
    accelerator: str = Field("", description="Resource name, such as nvidia.com/gpu; empty for none.")
    accelerators: int = Field(1, ge=1, description="How many, where accelerator is set.")
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    timeout_seconds: int = Field(7 * 86_400, ge=1, description="For each attempt.")
    retries: int = Field(3, ge=0, description="After a preemption or a lost node; resumed from checkpoints.")
    scratch: str = Field("20Gi", description="Size limit of /tmp, where copies of artifacts are kept.")
    scratch_class: str | None = Field(
        None,
        description="Storage class of /tmp as a volume of its own, which user 65532 may write to; by default "
        "it is the node's disk.",
    )

    @property
    def retry_window(self) -> int:
        """Seconds that all attempts and the pauses between them may take together.

        Argo counts them from the start of the first attempt, and ends the last one when they are over.
        """
        pauses = sum(BACKOFF_SECONDS * BACKOFF_FACTOR**attempt for attempt in range(self.retries))
        return self.timeout_seconds * (self.retries + 1) + int(pauses) + SLACK_SECONDS


BACKOFF_SECONDS, BACKOFF_FACTOR = 10, 2.0
SLACK_SECONDS = 86_400  # waiting for a node, pulling an image
TRAINING = Resources()
LIGHT = Resources(
    cpu_request="100m",
    cpu_limit="1",
    memory_request="256Mi",
    memory_limit="2Gi",
    timeout_seconds=3600,
    scratch="2Gi",
)
STAGES: dict[Component, Resources] = {
    "prepare-dataset": TRAINING,
    "clone-behavior": TRAINING,
    "fit-critics": TRAINING,
    "fit-dynamics": TRAINING,
    "improve-policy": TRAINING,
    "train-offline": TRAINING,
    "train-entrants": TRAINING,
    "decide-finetuning": LIGHT,
    "finetune-online": TRAINING,
    "report": TRAINING,
    "close-run": LIGHT,
    "leaderboard": LIGHT,
}
# No network is trained there: they get no accelerator, whatever the others ask for.
WITHOUT_ACCELERATOR: tuple[Component, ...] = ("prepare-dataset", "report")
# Keys of the ConfigMap that become variables. Where S3 is, is told there only and never in a secret, because
# Kubernetes refuses the pod of a variable that has two sources.
ENVIRONMENT = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)


class PipelineSettings(Closed):
    """Everything that is decided at compile time; parameters of a run are decided when it starts."""

    registry: str = REGISTRY
    tag: str = __version__
    needs: Resources = Field(TRAINING, description="What a run asks for where its parameters do not say.")
    stages: dict[Component, Resources] = Field({}, description="What is fixed, whatever a run asks for.")
    environment: str = Field("unio4-environment", description="ConfigMap that tells where S3 is, if any.")
    environment_keys: tuple[str, ...] = Field(ENVIRONMENT, description="Its keys that become variables.")
    ca_bundle: str | None = Field(
        None, description="ConfigMap with ca.crt, whom everything trusts then that speaks TLS."
    )
    s3_secret: str = Field("unio4-s3", description="Secret with the keys of S3; may be absent.")
    mlflow_secret: str = Field("unio4-mlflow", description="Secret with MLFLOW_* variables; may be absent.")
    claims: dict[str, str] = Field({}, description="Volume claims of prepare-dataset, and their places.")
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
        """What a component gets if its run does not ask for anything else."""
        usual = STAGES[component]
        return self.stages.get(component, self.needs if usual is TRAINING else usual)

    def asks_run(self, component: Component) -> bool:
        """Whether the parameters of a run decide what a component gets."""
        return component not in self.stages and STAGES[component] is TRAINING
