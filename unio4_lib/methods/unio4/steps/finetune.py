"""The improved policy, trained on in its environment."""

from unio4_lib.learning.ratchet import LOOK, SAMPLED
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4 import trainings
from unio4_lib.methods.unio4.fact_types import TuningFacts
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import read_critics
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.stages.online import finish_online
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import data_of, read_policy, transitions_of
from unio4_lib.stages.task import Task


def compute(work: StageWork[UniO4Config]) -> None:
    """Online PPO from the offline policy."""
    task = Task.of(transitions_of(work))
    with torch_threads(1):
        value = None
        if work.config.finetune.critic == "offline":
            value = trainings.offline_value(data_of(work), read_critics(work))
        training, curve = trainings.finetune_online(
            read_policy(work, "offline", GaussianPolicy),
            task,
            work.config,
            work.context.reporter,
            initial_value=value,
            journal=work.journal,
        )
    ratchet = training.ratchet
    # The lowest evaluation as a share of the first, and the lowest running mean of sampled returns.
    facts = TuningFacts(
        falls=ratchet.falls,
        worst_look=ratchet.worst(LOOK),
        worst_running_return=ratchet.worst(SAMPLED),
    )
    work.metrics["falls"] = float(len(ratchet.falls))
    shares = {"worst_look", "worst_running_return"}
    work.metrics.update(facts.model_dump(include=shares, exclude_none=True))
    finish_online(work, training.delivered, task, curve, facts)
