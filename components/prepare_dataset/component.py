"""First stage: a checked dataset, and the settings of the whole run."""

from kfp import dsl

from components.images import LIGHT


@dsl.component(base_image=LIGHT, install_kfp_package=False)
def prepare_dataset(
    source: str,
    method: str,
    preset: str,
    seed: int,
    overrides: list,
    artifact_root: str,
    mlflow_tracking_uri: str,
    experiment: str,
    run_name: str,
    sweep: str,
    reuse: bool,
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Resolve the settings, read the dataset, check it and publish it.

    Args:
        source: Where the data comes from: minari:, d4rl:, transitions: or collect:.
        method: The offline-to-online method: unio4, iql and others.
        preset: Preset of settings: quick, standard or paper.
        seed: Seed of everything random.
        overrides: Settings that differ from the preset, as key=value.
        artifact_root: Folder or s3://bucket/prefix that holds the bytes.
        mlflow_tracking_uri: Where the numbers go; none for nowhere.
        experiment: MLflow experiment that the run belongs to.
        run_name: Name of the MLflow parent run.
        sweep: Name of the sweep that the run is a member of; empty for none.
        reuse: Take artifacts that were made before in place of computing them again.
        dataset: Reference to the dataset.
        metrics: Transitions, episodes and mean return.

    Returns:
        The settings of the run as JSON, which all later stages take.
    """
    from unio4_lib.cli.component import resolve_run, run_component

    run = resolve_run(
        source,
        method,
        preset,
        seed,
        overrides,
        artifact_root=artifact_root,
        tracking=mlflow_tracking_uri,
        experiment=experiment,
        run_name=run_name,
        sweep=sweep,
        reuse=reuse,
    )
    run_component("prepare-dataset", run, {}, dataset, metrics)
    return run
