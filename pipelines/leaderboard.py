"""What the members of a sweep come to that are runs of their own: any number of them."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.leaderboard.component import leaderboard
from pipelines.settings import PipelineSettings
from pipelines.stages import Placement


def build_leaderboard(settings: PipelineSettings) -> BaseComponent:
    """The pipeline with these settings."""

    @dsl.pipeline(
        name="unio4-leaderboard", description="The leaderboard of a sweep from what its members left."
    )
    def unio4_leaderboard(members: list, sweep: str, artifact_root: str) -> None:
        # Each member closes its own run in MLflow.
        where = {"artifact_root": artifact_root, "mlflow_tracking_uri": "none", "experiment": ""}
        board = leaderboard(members=members, sweep=sweep, **where)
        Placement(settings).place(board, "leaderboard")

    return unio4_leaderboard
