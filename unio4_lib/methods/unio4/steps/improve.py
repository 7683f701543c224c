"""Better policies from the dataset alone, every replacement through the gate."""

from collections.abc import Callable
from dataclasses import asdict

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4.fact_types import GateFacts
from unio4_lib.methods.unio4.offline_policy import Improvement, Strangers, World, improve_policy
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import CANDIDATES, PORTFOLIO, START, read_critics, read_dynamics
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.report.summary import Fitted, Judged, TrustSummary
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import DECISIONS_FILE
from unio4_lib.stages.stored import data_of, read_policy, transitions_of, write_policy
from unio4_lib.stages.task import Task

FindStrangers = Callable[[GaussianPolicy, OfflineData], Strangers | None]


def compute(work: StageWork[UniO4Config]) -> None:
    """Extract policies, let the models judge them all, improve the best and choose one."""
    improve(work, lambda _behavior, _data: None)


def improve(work: StageWork[UniO4Config], find_strangers: FindStrangers) -> None:
    """As ``compute``, with policies of others among those that are judged."""
    task = Task.of(transitions_of(work))
    with torch_threads(1):
        data, model = data_of(work), read_dynamics(work)
        behavior = read_policy(work, "behavior", GaussianPolicy)
        found = improve_policy(
            data,
            behavior,
            World.of(read_critics(work), model, work.config),
            work.config,
            work.context.reporter,
            time_limit=task.time_limit(),
            strangers=find_strangers(behavior, data),
            journal=work.journal,
        )
    chosen, begun = found.chosen, found.start[found.chosen]
    write_policy(work, found.policies.members([chosen]), task, acts=found.acts)
    write_policy(work, found.portfolio.members([begun]), task, START)
    write_policy(work, found.policies, task, CANDIDATES)
    write_policy(work, found.portfolio, task, PORTFOLIO)
    work.write(DECISIONS_FILE, [asdict(entry) for entry in found.decisions])
    facts = offline_facts(found, work)
    work.metrics.update({"checks": float(facts.checks), "accepted": float(facts.accepted)})
    if found.opinion is not None:
        work.metrics["fqe/agrees"] = float(found.opinion.agrees)
        if found.opinion.rank_correlation is not None:
            work.metrics["fqe/rank_correlation"] = found.opinion.rank_correlation
    work.finish(found.log, facts)


def offline_facts(found: Improvement, work: StageWork[UniO4Config]) -> GateFacts:
    """What the report tells of the offline phase."""
    settings = work.config.improve
    return GateFacts(
        checks=len(found.decisions),
        accepted=sum(entry.accepted for entry in found.decisions),
        estimator=settings.estimator,
        confidence=settings.confidence,
        margin=settings.margin,
        acts=found.acts,
        chosen_member=found.chosen,
        started_from=found.start,
        portfolio=[Judged(**asdict(member)) for member in found.members],
        estimates=found.estimates,
        trust=None if found.trust is None else TrustSummary(**asdict(found.trust)),
        fqe=None if found.opinion is None else Fitted(**asdict(found.opinion)),
    )
