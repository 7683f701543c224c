"""Offline improvement behind the gate."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def improve_policy(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    behavior: dsl.Input[dsl.Model],
    critics: dsl.Input[dsl.Model],
    dynamics: dsl.Input[dsl.Model],
    offline: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Improve the clones offline; only what the gate accepts replaces a policy.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        behavior: Reference to the clones.
        critics: Reference to Q and V.
        dynamics: Reference to the transition models.
        offline: Reference to the improved policy.
        metrics: Estimates and decisions of the gate.
    """
    from unio4_lib.cli.component import run_component

    run_component(
        "improve-policy",
        run,
        {"dataset": dataset, "behavior": behavior, "critics": critics, "dynamics": dynamics},
        offline,
        metrics,
    )
