"""The gate between offline improvement and online fine-tuning."""

from kfp import dsl

from components.images import LIGHT


# One output, and a text: a condition on anything else is silently false in kfp.local 2.17.
@dsl.component(base_image=LIGHT, install_kfp_package=False)
def decide_finetuning(run: str, finetune: str, offline: dsl.Input[dsl.Model]) -> str:
    """Decide whether the improved policy goes online.

    Args:
        run: Settings of the run, as prepare-dataset resolved them.
        finetune: Always, never, or only when improved: when the gate accepted a policy offline.
        offline: Reference to the improved policy.

    Returns:
        The next step: finetune or report.
    """
    from unio4_lib.cli.component import decide

    return decide(run, finetune, offline)
