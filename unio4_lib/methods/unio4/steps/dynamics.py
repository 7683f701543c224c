"""Transition models of the dataset."""

from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4 import trainings
from unio4_lib.methods.unio4.facts import dynamics_facts
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import write_dynamics
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import data_of, transitions_of
from unio4_lib.stages.task import Task, check_holdout


def compute(work: StageWork[UniO4Config]) -> None:
    """Fit the models and keep the elite."""
    transitions = transitions_of(work)
    check_holdout(transitions, work.config)
    task = Task.of(transitions)
    with torch_threads(1):
        data = data_of(work)
        model, log = trainings.fit_dynamics(data, task, work.config, work.context.reporter, work.journal)
        _, holdout = data.split_episodes(
            work.config.dynamics.holdout_fraction, trainings.stream_seed(work.config, work.stage.name)
        )
        facts = dynamics_facts(model, data, holdout)
    write_dynamics(work, model, task)
    work.finish(log, facts)
