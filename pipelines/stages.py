"""The graph of the method: one place for the single run and for each member of a sweep."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineChannel

from components.clone_behavior.component import clone_behavior
from components.decide_finetuning.component import decide_finetuning
from components.finetune_online.component import finetune_online
from components.fit_critics.component import fit_critics
from components.fit_dynamics.component import fit_dynamics
from components.improve_policy.component import improve_policy
from components.prepare_dataset.component import prepare_dataset
from components.report.component import report
from components.train_entrants.component import train_entrants
from components.train_offline.component import train_offline
from pipelines.settings import (
    BACKOFF_FACTOR,
    BACKOFF_SECONDS,
    WITHOUT_ACCELERATOR,
    Component,
    PipelineSettings,
    Resources,
)
from unio4_lib.cli.component import CREDENTIALS, OWN

# The image that a component runs in, where that is not the one of its own name.
IMAGE_OF: dict[Component, str] = {
    "fit-critics": "improve-policy",
    "fit-dynamics": "improve-policy",
    "train-offline": "improve-policy",
    "train-entrants": "improve-policy",
    "report": "improve-policy",
    "decide-finetuning": "prepare-dataset",
    "close-run": "prepare-dataset",
    "leaderboard": "prepare-dataset",
}
# Where settings stand beside a learner, PyTorch is needed to read them: images that hold it, and all else
# that the component needs.
WITH_LEARNERS: dict[Component, str] = {
    "prepare-dataset": "finetune-online",
    "decide-finetuning": "improve-policy",
}
S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
CA_FOLDER = "/etc/unio4/ca"
CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
SCRATCH = "scratch"
USER = 65532  # of the images


@dataclass(frozen=True)
class Needs:
    """What the stages that compute ask of the cluster: parameters of the run, or what stands for them.

    Texts but for the last two, also the number of accelerators: KFP's driver takes a number for nothing.
    """

    cpu: tuple[Any, Any]  # requested, and at most
    memory: tuple[Any, Any]
    accelerators: tuple[Any, Any]  # of which kind, and how many
    node_selector: Any
    tolerations: Any

    @classmethod
    def of(cls, wanted: Resources) -> "Needs":
        """What is decided when the pipeline is compiled."""
        return cls(
            (wanted.cpu_request, wanted.cpu_limit),
            (wanted.memory_request, wanted.memory_limit),
            (wanted.accelerator, str(wanted.accelerators)),
            wanted.node_selector,
            wanted.tolerations,
        )


@dataclass(frozen=True)
class Placement:
    """How tasks are placed on a cluster."""

    settings: PipelineSettings
    needs: Needs | None = None  # of a run, where its parameters tell
    learners: bool = False  # whether settings of runs name learners

    def image(self, component: Component) -> str:
        """The image of a component."""
        name = IMAGE_OF.get(component, component)
        if self.learners:
            name = WITH_LEARNERS.get(component, name)
        return f"{self.settings.registry}/{name}:{self.settings.tag}"

    def place(self, task: dsl.PipelineTask, component: Component, *, image: Any = None) -> dsl.PipelineTask:
        """Image, resources, node, attempts, secrets and scratch space of a task."""
        wanted = self.settings.resources(component)
        task.set_display_name(component)
        task.set_container_image(image if image is not None else self.image(component))
        # KFP would skip what it has seen with the same arguments, and MLflow would not hear of it. Stages
        # reuse what is in the artifact root by themselves, and notice if a dataset has changed.
        task.set_caching_options(False)
        told = self.needs is not None and self.settings.asks_run(component)
        self._provide(task, component, self.needs if told else Needs.of(wanted))
        if wanted.retries:
            task.set_retry(
                num_retries=wanted.retries,
                backoff_duration=f"{BACKOFF_SECONDS}s",
                backoff_factor=BACKOFF_FACTOR,
                backoff_max_duration=f"{wanted.retry_window}s",
            )
        kubernetes.set_timeout(task, wanted.timeout_seconds)
        self._connect(task)
        self._mount(task, component, wanted)
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        return task

    def _provide(self, task: dsl.PipelineTask, component: Component, needs: Needs) -> None:
        """CPU, memory, accelerators, and the nodes that have them."""
        values = (*needs.cpu, *needs.memory, *needs.accelerators)
        # KFP's SDK 2.17 by itself hands these on to a task, but not to the graphs that it is in.
        task.register_pipeline_channels([value for value in values if isinstance(value, PipelineChannel)])
        task.set_cpu_request(needs.cpu[0]).set_cpu_limit(needs.cpu[1])
        task.set_memory_request(needs.memory[0]).set_memory_limit(needs.memory[1])
        kind, count = needs.accelerators
        if kind != "" and component not in WITHOUT_ACCELERATOR:
            task.set_accelerator_type(kind).set_accelerator_limit(count)
        if needs.node_selector != {}:
            kubernetes.add_node_selector_json(task, needs.node_selector)
        if needs.tolerations != []:
            kubernetes.add_toleration_json(task, needs.tolerations)

    def _connect(self, task: dsl.PipelineTask) -> None:
        """Where S3 is, credentials by reference, and what the parent run in MLflow is found again by."""
        settings = self.settings
        place = {name: name for name in settings.environment_keys}
        kubernetes.use_config_map_as_env(task, settings.environment, place, optional=True)
        for secret, names in (
            (settings.s3_secret, {name: name for name in S3_VARIABLES}),
            (settings.mlflow_secret, {name: OWN + name for name in CREDENTIALS}),
        ):
            kubernetes.use_secret_as_env(task, secret, names, optional=True)
        kubernetes.use_field_path_as_env(task, "UNIO4_RUN_KEY", "metadata.labels['pipeline/runid']")

    def _mount(self, task: dsl.PipelineTask, component: Component, wanted: Resources) -> None:
        """Scratch space, certificates, and data where it is read."""
        if self.settings.ca_bundle is not None:
            kubernetes.use_config_map_as_volume(task, self.settings.ca_bundle, CA_FOLDER)
            for variable in CA_VARIABLES:
                task.set_env_variable(variable, f"{CA_FOLDER}/ca.crt")
        # The root file system may be read-only; KFP's executor and the stages write here.
        if wanted.scratch_class is None:
            kubernetes.empty_dir_mount(task, SCRATCH, "/tmp", size_limit=wanted.scratch)
        else:
            kubernetes.add_ephemeral_volume(
                task,
                SCRATCH,
                "/tmp",
                ["ReadWriteOnce"],
                wanted.scratch,
                storage_class_name=wanted.scratch_class,
            )
        if component == "prepare-dataset":
            for claim, path in self.settings.claims.items():
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)


def add_stages(
    placement: Placement,
    *,
    finetune: Any,
    prepare_image: Any,
    entrants: bool = False,
    **prepare: Any,
) -> None:
    """All stages of one run, in the context that is open; ``prepare`` is what prepare-dataset takes.

    With ``entrants``, policies of other methods are trained beside the rest, and judged with the clones.
    """
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
    if entrants:
        trained = place(train_entrants(run=run, dataset=dataset), "train-entrants")
        learned["entrants"] = trained.outputs["entrants"]
    improved = place(improve_policy(run=run, **learned), "improve-policy")
    learned["offline"] = improved.outputs["offline"]

    tuned = {"critics": learned["critics"]}
    _go_on(placement, run, finetune, learned, tuned)


def add_tournament_stages(placement: Placement, **told: Any) -> None:
    """As ``add_stages``, with entrants."""
    add_stages(placement, entrants=True, **told)


def add_offpolicy_stages(placement: Placement, *, finetune: Any, prepare_image: Any, **prepare: Any) -> None:
    """As ``add_stages``, of a method that trains policy and values together."""
    prepared = placement.place(prepare_dataset(**prepare), "prepare-dataset", image=prepare_image)
    run, dataset = prepared.outputs["Output"], prepared.outputs["dataset"]
    trained = placement.place(train_offline(run=run, dataset=dataset), "train-offline")
    _go_on(placement, run, finetune, {"dataset": dataset, "offline": trained.outputs["offline"]}, {})


def _go_on(
    placement: Placement, run: Any, finetune: Any, learned: dict[str, Any], tuned: dict[str, Any]
) -> None:
    """Online, or not, and the report; ``tuned`` is what fine-tuning takes beside data and policy."""
    place, offline = placement.place, learned["offline"]
    decided = place(decide_finetuning(run=run, finetune=finetune, offline=offline), "decide-finetuning")
    with dsl.If(decided.output == "finetune", name="go-online"):
        tuning = finetune_online(run=run, dataset=learned["dataset"], offline=offline, **tuned)
        place(tuning, "finetune-online")
        place(report(run=run, online=tuning.outputs["online"], **learned), "report")
    with dsl.Else(name="stay-offline"):
        place(report(run=run, **learned), "report")
