"""Last stage: scores of all policies, and the report."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def report(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    behavior: dsl.Input[dsl.Model],
    critics: dsl.Input[dsl.Model],
    dynamics: dsl.Input[dsl.Model],
    offline: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    online: dsl.Input[dsl.Model] = None,
) -> None:
    """Score the policies in the simulator and write the report.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        behavior: Reference to the clones.
        critics: Reference to Q and V.
        dynamics: Reference to the transition models.
        offline: Reference to the improved policy.
        report: Reference to the summary and the report.
        page: The report as it is shown.
        metrics: Scores of the policies.
        online: Reference to the fine-tuned policy, where there is one.
    """
    from unio4_lib.cli.component import run_component

    inputs = {
        "dataset": dataset,
        "behavior": behavior,
        "critics": critics,
        "dynamics": dynamics,
        "offline": offline,
    }
    if online is not None:
        inputs["online"] = online
    run_component("report", run, inputs, report, metrics, page)
