"""Online fine-tuning."""

from kfp import dsl

from components.images import ONLINE


@dsl.component(base_image=ONLINE, install_kfp_package=False)
def finetune_online(
    run: str,
    dataset: dsl.Input[dsl.Dataset],
    critics: dsl.Input[dsl.Model],
    offline: dsl.Input[dsl.Model],
    online: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fine-tune the improved policy online with PPO.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        dataset: Reference to the dataset.
        critics: Reference to Q and V.
        offline: Reference to the improved policy.
        online: Reference to the fine-tuned policy.
        metrics: Environment steps and last return.
    """
    from unio4_lib.cli.component import run_component

    run_component(
        "finetune-online", run, {"dataset": dataset, "critics": critics, "offline": offline}, online, metrics
    )
