"""One run of the method: from a dataset to a fine-tuned policy."""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.close_run.component import close_run
from pipelines.settings import PipelineSettings
from pipelines.stages import Needs, Placement, add_offpolicy_stages, add_stages, add_tournament_stages


def build_unio4(settings: PipelineSettings) -> BaseComponent:
    """Of Uni-O4."""
    return _build(settings, "unio4", "unio4", add_stages)


def build_offpolicy(settings: PipelineSettings) -> BaseComponent:
    """Of every method that trains policy and values together."""
    return _build(settings, "unio4-offpolicy", "iql", add_offpolicy_stages, learners=True)


def build_tournament(settings: PipelineSettings) -> BaseComponent:
    """Of Uni-O4 with policies of other methods before its judge."""
    return _build(settings, "unio4-tournament", "tournament", add_tournament_stages, learners=True)


def _build(
    settings: PipelineSettings,
    name: str,
    usual_method: str,
    add: Callable[..., None],
    *,
    learners: bool = False,
) -> BaseComponent:
    """The pipeline with these settings."""
    images, usual = Placement(settings, learners=learners), settings.needs

    @dsl.pipeline(name=name, description="Offline-to-online reinforcement learning of one dataset.")
    def one_run(
        dataset: str,
        artifact_root: str,
        method: str = usual_method,
        preset: str = "quick",
        seed: int = 0,
        overrides: list = [],  # noqa: B006 - KFP reads the default when it compiles
        mlflow_tracking_uri: str = "none",
        experiment: str = "unio4",
        run_name: str = "",
        finetune: str = "always",
        reuse: bool = True,
        sweep: str = "",
        prepare_image: str = images.image("prepare-dataset"),
        cpu_request: str = usual.cpu_request,
        cpu_limit: str = usual.cpu_limit,
        memory_request: str = usual.memory_request,
        memory_limit: str = usual.memory_limit,
        accelerator: str = usual.accelerator,
        accelerators: str = str(usual.accelerators),
        node_selector: dict = usual.node_selector,
        tolerations: list = usual.tolerations,
    ) -> None:
        cpu, memory = (cpu_request, cpu_limit), (memory_request, memory_limit)
        needs = Needs(cpu, memory, (accelerator, accelerators), node_selector, tolerations)
        placement = Placement(settings, needs, learners)
        tracked = {"mlflow_tracking_uri": mlflow_tracking_uri, "experiment": experiment}
        named = {"run_name": run_name, "sweep": sweep, "source": dataset, "seed": seed, "method": method}
        closing = close_run(artifact_root=artifact_root, **named, **tracked)
        placement.place(closing, "close-run")
        with dsl.ExitHandler(closing, name="stages"):
            add(
                placement,
                preset=preset,
                overrides=overrides,
                artifact_root=artifact_root,
                finetune=finetune,
                reuse=reuse,
                prepare_image=prepare_image,
                **named,
                **tracked,
            )

    return one_run
