"""The graph of the method: one place for the single run and for each member of a sweep."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes

from components.clone_behavior.component import clone_behavior
from components.decide_finetuning.component import decide_finetuning
from components.finetune_online.component import finetune_online
from components.fit_critics.component import fit_critics
from components.fit_dynamics.component import fit_dynamics
from components.improve_policy.component import improve_policy
from components.prepare_dataset.component import prepare_dataset
from components.report.component import report
from pipelines.settings import Component, PipelineSettings

# The image that a component runs in, where that is not the one of its own name.
IMAGE_OF: dict[Component, str] = {
    "fit-critics": "improve-policy",
    "fit-dynamics": "improve-policy",
    "report": "improve-policy",
    "decide-finetuning": "prepare-dataset",
    "close-run": "prepare-dataset",
    "leaderboard": "prepare-dataset",
}
S3_PLACE = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
)
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
USER = 65532  # of the images
BACKOFF = {"backoff_duration": "10s", "backoff_factor": 2.0, "backoff_max_duration": "300s"}


@dataclass(frozen=True)
class Placement:
    """How tasks are placed on a cluster."""

    settings: PipelineSettings

    def image(self, component: Component) -> str:
        """The image of a component."""
        return f"{self.settings.registry}/{IMAGE_OF.get(component, component)}:{self.settings.tag}"

    def place(self, task: dsl.PipelineTask, component: Component, *, image: Any = None) -> dsl.PipelineTask:
        """Image, resources, node, time limit, secrets and scratch space of a task."""
        wanted = self.settings.resources(component)
        task.set_display_name(component)
        task.set_container_image(image if image is not None else self.image(component))
        task.set_cpu_request(wanted.cpu_request).set_cpu_limit(wanted.cpu_limit)
        task.set_memory_request(wanted.memory_request).set_memory_limit(wanted.memory_limit)
        if wanted.accelerator is not None:
            task.set_accelerator_type(wanted.accelerator).set_accelerator_limit(wanted.accelerators)
        for label, value in wanted.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for toleration in wanted.tolerations:
            kubernetes.add_toleration_json(task, toleration)
        if wanted.retries:
            task.set_retry(num_retries=wanted.retries, **BACKOFF)
        kubernetes.set_timeout(task, wanted.timeout_seconds)
        self._connect(task)
        # The root file system may be read-only; KFP's executor and the stages write here.
        kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=wanted.scratch)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        return task

    def _connect(self, task: dsl.PipelineTask) -> None:
        """Where S3 is, credentials by reference, and what the parent run in MLflow is found again by."""
        settings = self.settings
        place = {name: name for name in S3_PLACE}
        kubernetes.use_config_map_as_env(task, settings.environment, place, optional=True)
        for secret, names in (
            (settings.s3_secret, S3_VARIABLES),
            (settings.mlflow_secret, MLFLOW_VARIABLES),
        ):
            kubernetes.use_secret_as_env(task, secret, {name: name for name in names}, optional=True)
        # Not an argument: it would be another one each time, and nothing would ever be found in KFP's cache.
        kubernetes.use_field_path_as_env(task, "UNIO4_RUN_KEY", "metadata.labels['pipeline/runid']")


def add_stages(
    placement: Placement,
    *,
    finetune: Any,
    prepare_image: Any,
    **prepare: Any,
) -> None:
    """All stages of one run, in the context that is open; ``prepare`` is what prepare-dataset takes."""
    place = placement.place

    # Data and settings
    prepared = place(prepare_dataset(**prepare), "prepare-dataset", image=prepare_image)
    run, dataset = prepared.outputs["Output"], prepared.outputs["dataset"]

    # Three stages that need nothing of each other
    cloned = place(clone_behavior(run=run, dataset=dataset), "clone-behavior")
    valued = place(fit_critics(run=run, dataset=dataset), "fit-critics")
    modeled = place(fit_dynamics(run=run, dataset=dataset), "fit-dynamics")

    # Offline improvement
    learned = {
        "dataset": dataset,
        "behavior": cloned.outputs["behavior"],
        "critics": valued.outputs["critics"],
        "dynamics": modeled.outputs["dynamics"],
    }
    improved = place(improve_policy(run=run, **learned), "improve-policy")
    learned["offline"] = improved.outputs["offline"]

    # Online, or not
    decided = decide_finetuning(run=run, finetune=finetune, offline=learned["offline"])
    place(decided, "decide-finetuning").set_caching_options(False)
    with dsl.If(decided.output == "finetune", name="go-online"):
        tuned = finetune_online(
            run=run, dataset=dataset, critics=learned["critics"], offline=learned["offline"]
        )
        place(tuned, "finetune-online")
        whole = report(run=run, online=tuned.outputs["online"], **learned)
        place(whole, "report").set_caching_options(False)
    with dsl.Else(name="stay-offline"):
        offline_only = report(run=run, **learned)
        place(offline_only, "report").set_caching_options(False)
