"""Fine-tuning online as a stage: its learning curve, its log, and where it is taken up again."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from unio4_lib import words
from unio4_lib.learning.evaluation import EpisodeStats
from unio4_lib.learning.finetune import CurvePoint, Evaluate, Progress
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import LogEntry, Metrics, guard, to_numbers
from unio4_lib.nets.policy import Policy
from unio4_lib.progress import Reporter
from unio4_lib.report.facts import OnlineFacts
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import CURVE_FILE
from unio4_lib.stages.stored import write_policy
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import score


class Training(Protocol):
    """What trains in the environment."""

    delivered_at: int

    @property
    def delivered(self) -> Policy: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def env_steps(self) -> int: ...

    def run(self, evaluate: Evaluate, progress: Progress | None = None) -> Iterator[CurvePoint]: ...

    def close(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Curve:
    """Fine-tuning's evaluations: environment steps, mean return, standard error."""

    points: list[tuple[int, float, float]]
    log: list[LogEntry]  # of every round, by environment steps
    delivered_at: int  # environment steps behind the policy that is handed over


def follow(
    training: Training,
    task: Task,
    total: int,
    score_with: tuple[int, int],
    reporter: Reporter,
    journal: Journal,
) -> Curve:
    """Run it to its end, from the beginning or from where the journal says, and close it.

    ``score_with`` is the seed and the number of episodes of an evaluation.
    """
    try:
        return _follow(training, task, total, score_with, reporter, journal)
    finally:
        training.close()


def _follow(
    training: Training,
    task: Task,
    total: int,
    score_with: tuple[int, int],
    reporter: Reporter,
    journal: Journal,
) -> Curve:
    points: list[tuple[int, float, float]] = []
    log: list[LogEntry] = []
    kept: list[int] = []  # environment steps of checkpoints
    if journal.resumed is not None:
        training.load_state_dict(journal.resumed["training"])
        points.extend(journal.resumed["points"])
        log.extend(LogEntry(**entry) for entry in journal.resumed["log"])
        kept.append(training.env_steps)

    def keep() -> None:
        saved = journal.offer(
            lambda: {
                "training": training.state_dict(),
                "points": list(points),
                "log": [asdict(entry) for entry in log],
            }
        )
        if saved:
            kept.append(training.env_steps)

    with reporter.stage("finetune-online", total, training.env_steps) as update:

        def show(steps: int, metrics: Metrics) -> None:
            last = f"return {words.with_error(*points[-1][1:])}" if points else ""
            log.append(LogEntry(steps, 0.0, to_numbers(metrics)))
            guard("finetune-online", steps, _broken(training.policy, log[-1].values), kept)
            journal.entry(steps, log[-1].values)
            update(min(steps, total), last)
            keep()

        def measure(policy: Policy, *, sampled: bool = False) -> EpisodeStats:
            seed, episodes = score_with
            return score(task, policy, episodes, seed, sampled=sampled)

        for point in training.run(measure, show):
            points.append((point.env_steps, float(point.stats.mean), float(point.stats.stderr)))
            journal.entry(point.env_steps, {"return": points[-1][1], "return_stderr": points[-1][2]})
            keep()
    return Curve(points, log, training.delivered_at)


def _broken(policy: Policy, values: dict[str, float]) -> dict[str, float]:
    """What must be a number to go on: no metric may be NaN, and no weight of the policy."""
    weights = torch.nn.utils.parameters_to_vector(policy.parameters())
    checked = {name: value for name, value in values.items() if math.isnan(value)}
    return checked | {"policy/weights": float(weights.detach().abs().max())}


def finish_online(
    work: StageWork[Any], policy: Policy, task: Task, curve: Curve, facts: OnlineFacts | None = None
) -> None:
    """Write what came of it; to facts that only the method knows are added those of every curve."""
    write_policy(work, policy, task)
    work.write(CURVE_FILE, curve.points)
    env_steps, mean, _ = curve.points[-1]
    work.metrics.update({"env_steps": float(env_steps), "last_return": mean})
    common = {"env_steps": env_steps, "delivered_at": curve.delivered_at}
    work.finish(curve.log, (facts or OnlineFacts()).model_copy(update=common))
