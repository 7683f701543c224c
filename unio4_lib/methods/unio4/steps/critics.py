"""Q and V of the dataset."""

from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4 import trainings
from unio4_lib.methods.unio4.facts import critics_facts
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import write_critics
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import data_of


def compute(work: StageWork[UniO4Config]) -> None:
    """Fit the critics."""
    data = data_of(work)
    with torch_threads(1):
        critics, log = trainings.fit_critics(data, work.config, work.context.reporter, work.journal)
        facts = critics_facts(critics, data)
    write_critics(work, critics, data.observation_dim, data.action_dim)
    work.finish(log, facts)
