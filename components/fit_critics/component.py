"""Q and V of the dataset."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def fit_critics(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    critics: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit the critics: Q and V of the dataset.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        critics: Reference to Q and V.
        metrics: Mean value and return.
    """
    from unio4_lib.cli.component import run_component

    run_component("fit-critics", run, {"dataset": dataset}, critics, metrics)
