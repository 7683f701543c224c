"""Many runs at once, and what they come to."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.leaderboard.component import leaderboard
from pipelines.settings import PipelineSettings
from pipelines.stages import Placement, add_stages


def build_members(placement: Placement) -> BaseComponent:
    """All runs: a graph of its own, so that the leaderboard can follow whatever became of them."""

    @dsl.pipeline(name="members", description="One run for each dataset and seed.")
    def run_members(
        members: list,
        sweep: str,
        artifact_root: str,
        method: str,
        preset: str,
        overrides: list,
        mlflow_tracking_uri: str,
        experiment: str,
        finetune: str,
        reuse: bool,
        prepare_image: str,
    ) -> None:
        with dsl.ParallelFor(
            members, name="each-member", parallelism=placement.settings.parallel_members
        ) as member:
            add_stages(
                placement,
                source=member.dataset,
                seed=member.seed,
                run_name="",  # of sweep, dataset and seed; KFP 2.17 loses items of a loop inside a text
                sweep=sweep,
                method=method,
                preset=preset,
                overrides=overrides,
                artifact_root=artifact_root,
                mlflow_tracking_uri=mlflow_tracking_uri,
                experiment=experiment,
                finetune=finetune,
                reuse=reuse,
                prepare_image=prepare_image,
            )

    return run_members


def build_sweep(settings: PipelineSettings) -> BaseComponent:
    """The pipeline with these settings."""
    placement = Placement(settings)
    run_members = build_members(placement)

    @dsl.pipeline(name="unio4-sweep", description="Datasets and seeds side by side, and their leaderboard.")
    def unio4_sweep(
        members: list,
        sweep: str,
        artifact_root: str,
        method: str = "unio4",
        preset: str = "quick",
        overrides: list = [],  # noqa: B006 - KFP reads the default when it compiles
        mlflow_tracking_uri: str = "none",
        experiment: str = "unio4",
        finetune: str = "always",
        reuse: bool = True,
        prepare_image: str = placement.image("prepare-dataset"),
    ) -> None:
        running = run_members(
            members=members,
            sweep=sweep,
            artifact_root=artifact_root,
            method=method,
            preset=preset,
            overrides=overrides,
            mlflow_tracking_uri=mlflow_tracking_uri,
            experiment=experiment,
            finetune=finetune,
            reuse=reuse,
            prepare_image=prepare_image,
        )
        running.set_caching_options(False)
        # What the members left in the store is read, not what KFP handed on: a failed one hands on nothing.
        board = leaderboard(
            members=members,
            sweep=sweep,
            artifact_root=artifact_root,
            mlflow_tracking_uri=mlflow_tracking_uri,
            experiment=experiment,
        )
        board.after(running).ignore_upstream_failure()
        placement.place(board, "leaderboard")

    return unio4_sweep
