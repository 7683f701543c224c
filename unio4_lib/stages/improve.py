"""Better policies from the dataset alone, every replacement through the gate."""

from dataclasses import asdict

from unio4_lib.online.threads import torch_threads
from unio4_lib.stages import method
from unio4_lib.stages.catalog import DECISIONS_FILE
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.stored import (
    CANDIDATES,
    data_of,
    read_critics,
    read_dynamics,
    read_policy,
    transitions_of,
    write_policy,
)
from unio4_lib.stages.task import Task


def compute(work: StageWork) -> None:
    """Improve all members and choose one of them by the models' estimate."""
    task = Task.of(transitions_of(work))
    with torch_threads(1):
        found = method.improve_policy(
            data_of(work),
            read_policy(work, "behavior"),
            read_critics(work),
            read_dynamics(work),
            work.config,
            work.context.reporter,
            time_limit=task.time_limit(),
            journal=work.journal,
        )
    write_policy(work, found.policies.members([found.chosen]), task, member=found.chosen)
    write_policy(work, found.policies, task, CANDIDATES)
    work.write(DECISIONS_FILE, [asdict(entry) for entry in found.decisions])
    checks, accepted = len(found.decisions), sum(entry.accepted for entry in found.decisions)
    facts = {
        "checks": checks,
        "accepted": accepted,
        "estimator": work.config.improve.estimator,
        "rule": work.config.improve.rule,
        "chosen_member": found.chosen,
        "estimates": found.estimates,
        "calibration": None if found.calibration is None else asdict(found.calibration),
    }
    work.metrics.update({"checks": float(checks), "accepted": float(accepted)})
    work.finish([(entry.step, entry.values) for entry in found.log], facts)
