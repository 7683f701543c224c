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
    entrants: dsl.Input[dsl.Model] = None,
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
        entrants: Reference to policies of other methods, where the method has them judged, too.
    """
    from unio4_lib.cli.component import run_component

    inputs = {"dataset": dataset, "behavior": behavior, "critics": critics, "dynamics": dynamics}
    if entrants is not None:
        inputs["entrants"] = entrants
    run_component("improve-policy", run, inputs, offline, metrics)
