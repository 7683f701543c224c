"""Behavior policies of the dataset."""

from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4 import trainings
from unio4_lib.methods.unio4.facts import behavior_facts
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import data_of, transitions_of, write_policy
from unio4_lib.stages.task import Task, check_holdout


def compute(work: StageWork[UniO4Config]) -> None:
    """Clone, and keep each member's best weights."""
    transitions = transitions_of(work)
    check_holdout(transitions, work.config)
    with torch_threads(1):
        data = data_of(work)
        policy, log = trainings.clone_behavior(data, work.config, work.context.reporter, work.journal)
        _, holdout = data.split_episodes(
            work.config.behavior.holdout_fraction, trainings.stream_seed(work.config, work.stage.name)
        )
        facts = behavior_facts(policy, data, holdout)
    write_policy(work, policy, Task.of(transitions))
    work.finish(log, facts)
