"""What a tournament does beside what Uni-O4 does."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from unio4_lib.learning.loop import LogEntry
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.tournament.entrants import Entered, EntrantsFacts, entrants_of
from unio4_lib.methods.tournament.settings import TournamentConfig
from unio4_lib.methods.unio4.offline_policy import Strangers
from unio4_lib.methods.unio4.steps.improve import improve as improve_best
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.kinds import as_gaussian
from unio4_lib.nets.policy import GaussianPolicy, stack_policies
from unio4_lib.report.facts import read_log
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.runner import StageWork, run_stage
from unio4_lib.stages.step import DATASET, LOG_FILE, POLICY

ENTRANTS = "entrants"  # kind of the artifact with a folder for each entrant, by number
WIDTH_ROWS = 4_096  # of the data, on which the clones say how far their noise reaches


def train_entrants(work: StageWork[TournamentConfig]) -> None:
    """The offline stage of each entrant, as its own run would do it: what such a run has made is reused."""
    log: list[LogEntry] = []
    entered: list[Entered] = []
    for number, entrant in enumerate(entrants_of(work.config.entrants, work.config)):
        outcome = run_stage(entrant.step, entrant.config, {DATASET: work.refs[DATASET]}, work.context)
        made = work.context.hold(outcome.ref)
        shutil.copytree(made / POLICY, work.folder / str(number) / POLICY)
        log += _log(entrant.label, made / LOG_FILE)
        method, digest = entrant.config.method, outcome.ref.digest
        entered.append(Entered(label=entrant.label, method=method, artifact_digest=digest))
    work.finish(log, EntrantsFacts(entrants=entered))


def _log(label: str, path: Path) -> list[LogEntry]:
    """The curves of an entrant under its label."""
    return [
        LogEntry(line.step, 0.0, {f"{label}/{name}": value for name, value in line.values.items()})
        for line in read_log(path).entries
    ]


def improve(work: StageWork[TournamentConfig]) -> None:
    """Let the models judge clones and entrants alike, improve the best and choose one."""
    improve_best(work, lambda behavior, data: _strangers(work, behavior, data))


def _strangers(work: StageWork[TournamentConfig], behavior: GaussianPolicy, data: OfflineData) -> Strangers:
    """The entrants with their own mean actions and the noise of the clones, whatever they were before."""
    names = [entrant.label for entrant in work.facts(ENTRANTS, EntrantsFacts).entrants]
    log_std, device = usual_log_std(behavior, data), choose_device(work.config)
    policies = []
    for number in range(len(names)):
        policy, _ = load_policy(work.input(ENTRANTS) / str(number) / POLICY)
        policies.append(as_gaussian(policy.to(device), behavior.spec, log_std))
    return Strangers(stack_policies(policies), names)


@torch.no_grad()
def usual_log_std(behavior: GaussianPolicy, data: OfflineData) -> Tensor:
    """How wide the clones are [A], on average over themselves and rows of the data."""
    every = max(1, len(data.observations) // WIDTH_ROWS)
    return behavior.distribution(data.observations[::every]).log_std.mean(dim=(0, 1))
