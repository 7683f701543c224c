"""Behavior policies of the dataset."""

from kfp import dsl

from components.images import CLONING


@dsl.component(base_image=CLONING, install_kfp_package=False)
def clone_behavior(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    behavior: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Clone the behavior of the dataset with several policies.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        behavior: Reference to the clones.
        metrics: Hold-out likelihood of the clones.
    """
    from unio4_lib.cli.component import run_component

    run_component("clone-behavior", run, {"dataset": dataset}, behavior, metrics)
