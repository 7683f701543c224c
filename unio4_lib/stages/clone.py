"""Behavior policies of the dataset."""

from unio4_lib.online.threads import torch_threads
from unio4_lib.stages import method
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import data_of, transitions_of, write_policy
from unio4_lib.stages.task import Task, check_holdout


def compute(work: StageWork) -> None:
    """Clone, and keep each member's best weights."""
    transitions = transitions_of(work)
    check_holdout(transitions, work.config)
    with torch_threads(1):
        policy, log = method.clone_behavior(data_of(work), work.config, work.context.reporter, work.journal)
    write_policy(work, policy, Task.of(transitions))
    work.finish([(entry.step, entry.values) for entry in log], {"members": policy.spec.members})
