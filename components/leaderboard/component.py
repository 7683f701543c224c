"""What a sweep found out."""

from kfp import dsl

from components.images import LIGHT


@dsl.component(base_image=LIGHT, install_kfp_package=False)
def leaderboard(
    members: list,
    sweep: str,
    artifact_root: str,
    mlflow_tracking_uri: str,
    experiment: str,
    page: dsl.Output[dsl.HTML],
    table: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Collect the members of a sweep; one that failed is named and does not lose the others.

    Args:
        members: The runs of the sweep, each a dataset and a seed.
        sweep: Name of the sweep.
        artifact_root: Folder or s3://bucket/prefix that holds the bytes.
        mlflow_tracking_uri: Where the runs of members that failed are closed; none for nowhere.
        experiment: MLflow experiment that the members belong to.
        page: The comparison of all members.
        table: The leaderboard.
        metrics: Mean, interval and interquartile mean of each dataset.
    """
    from unio4_lib.cli.component import write_leaderboard

    write_leaderboard(members, sweep, artifact_root, mlflow_tracking_uri, experiment, page, table, metrics)
