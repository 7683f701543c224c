"""Policies of the methods that take part in a tournament."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def train_entrants(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    entrants: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the policy of each entrant on the dataset; what its own run has made before is reused.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        entrants: Reference to their policies.
        metrics: Time and memory.
    """
    from unio4_lib.cli.component import run_component

    run_component("train-entrants", run, {"dataset": dataset}, entrants, metrics)
