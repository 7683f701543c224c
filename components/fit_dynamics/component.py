"""Transition models of the dataset."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def fit_dynamics(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    dynamics: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit the ensemble of transition models.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        dynamics: Reference to the transition models.
        metrics: Hold-out error of the models.
    """
    from unio4_lib.cli.component import run_component

    run_component("fit-dynamics", run, {"dataset": dataset}, dynamics, metrics)
