"""Last stage: scores of all policies, and the report."""

from kfp import dsl

from components.images import TRAINING


@dsl.component(base_image=TRAINING, install_kfp_package=False)
def report(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    offline: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    behavior: dsl.Input[dsl.Model] = None,
    critics: dsl.Input[dsl.Model] = None,
    dynamics: dsl.Input[dsl.Model] = None,
    entrants: dsl.Input[dsl.Model] = None,
    online: dsl.Input[dsl.Model] = None,
) -> None:
    """Score the policies in the simulator and write the report.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        offline: Reference to the offline policy.
        report: Reference to the summary and the report.
        page: The report as it is shown.
        metrics: Scores of the policies.
        behavior: Reference to the clones, where the method makes them.
        critics: Reference to Q and V, where the method makes them apart.
        dynamics: Reference to the transition models, where the method makes them.
        entrants: Reference to policies of other methods, where the method has them judged, too.
        online: Reference to the fine-tuned policy, where there is one.
    """
    from unio4_lib.cli.component import run_component

    made = {"behavior": behavior, "critics": critics, "dynamics": dynamics}
    made |= {"entrants": entrants, "online": online}
    inputs = {"dataset": dataset, "offline": offline}
    inputs |= {kind: artifact for kind, artifact in made.items() if artifact is not None}
    run_component("report", run, inputs, report, metrics, page)
