"""Offline training of a method that learns a policy and its values together."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def train_offline(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    offline: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the method's learner on the dataset.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        offline: Reference to the offline policy, with all that its learner goes on with.
        metrics: Losses and values at the end of training.
    """
    from unio4_lib.cli.component import run_component

    run_component("train-offline", run, {"dataset": dataset}, offline, metrics)
