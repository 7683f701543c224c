"""Online fine-tuning."""

from kfp import dsl

from components.images import ONLINE


@dsl.component(base_image=ONLINE, install_kfp_package=False)
def finetune_online(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    offline: dsl.Input[dsl.Model],
    online: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    critics: dsl.Input[dsl.Model] = None,
) -> None:
    """Fine-tune the offline policy in its environment.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        offline: Reference to the offline policy.
        online: Reference to the fine-tuned policy.
        metrics: Environment steps and last return.
        critics: Reference to Q and V, where the method makes them apart.
    """
    from unio4_lib.cli.component import run_component

    inputs = {"dataset": dataset, "offline": offline}
    if critics is not None:
        inputs["critics"] = critics
    run_component("finetune-online", run, inputs, online, metrics)
