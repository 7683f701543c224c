"""One run of the method: from a dataset to a fine-tuned policy."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.close_run.component import close_run
from pipelines.settings import PipelineSettings
from pipelines.stages import Placement, add_stages


def build_unio4(settings: PipelineSettings) -> BaseComponent:
    """The pipeline with these settings."""
    placement = Placement(settings)

    @dsl.pipeline(name="unio4", description="Offline-to-online reinforcement learning of one dataset.")
    def unio4(
        dataset: str,
        artifact_root: str,
        preset: str = "quick",
        seed: int = 0,
        overrides: list = [],  # noqa: B006 - KFP reads the default when it compiles
        mlflow_tracking_uri: str = "none",
        experiment: str = "unio4",
        run_name: str = "",
        finetune: str = "always",
        reuse: bool = True,
        prepare_image: str = placement.image("prepare-dataset"),
    ) -> None:
        closing = close_run(mlflow_tracking_uri=mlflow_tracking_uri, experiment=experiment, run_name=run_name)
        placement.place(closing, "close-run").set_caching_options(False)
        with dsl.ExitHandler(closing, name="stages"):
            add_stages(
                placement,
                source=dataset,
                seed=seed,
                run_name=run_name,
                sweep="",
                preset=preset,
                overrides=overrides,
                artifact_root=artifact_root,
                mlflow_tracking_uri=mlflow_tracking_uri,
                experiment=experiment,
                finetune=finetune,
                reuse=reuse,
                prepare_image=prepare_image,
            )

    return unio4
