"""Whatever became of the run: its MLflow parent run says so."""

from kfp import dsl

from components.images import LIGHT


@dsl.component(base_image=LIGHT, install_kfp_package=False)
def close_run(
    mlflow_tracking_uri: str,
    experiment: str,
    run_name: str,
    sweep: str,
    source: str,
    seed: int,
    method: str,
    artifact_root: str,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Close the MLflow parent run with the true status.

    Args:
        mlflow_tracking_uri: Where the numbers went; none for nowhere.
        experiment: MLflow experiment that the run belongs to.
        run_name: Name of the MLflow parent run.
        sweep: Name of the sweep that the run is a member of; empty for none.
        source: Where the data comes from.
        seed: Seed of everything random.
        method: The offline-to-online method.
        artifact_root: Folder or s3://bucket/prefix, where a stage that failed has left its reason.
        status: What became of the stages.
    """
    from unio4_lib.cli.component import close_tracking

    member = (sweep, source, seed, method) if sweep else None
    close_tracking(mlflow_tracking_uri, experiment, run_name, member, artifact_root, status.state)
