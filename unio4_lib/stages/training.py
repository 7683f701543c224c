"""What stages that train have in common: seeds, the loop with its journal, scores in the simulator."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from unio4_lib.learning.evaluation import EpisodeStats, evaluate
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import Check, LogEntry, Trainer, run_loop
from unio4_lib.nets.policy import Policy
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.task import Task

# Every stage draws from a stream of its own: changing one leaves the others' numbers alone.
SEED_STRIDE = 1_000_000
SEED_RANGE = 2**62  # generators of torch take 64 bits


def stage_seed(config: RunConfig, stream: int) -> int:
    """Seed of one stage of a run; each draws from a stream of its own."""
    return (config.seed * SEED_STRIDE + stream * 10_000) % SEED_RANGE


def score(
    task: Task, policy: Policy, episodes: int, seed: int, *, member: int = 0, sampled: bool = False
) -> EpisodeStats:
    """Whole episodes of one member in the simulator, with its mean action or with sampled ones."""
    noise = np.random.default_rng(seed) if sampled else None
    shape = (policy.spec.members, 1, policy.spec.action_dim)

    def act(observations: np.ndarray) -> np.ndarray:
        if noise is None:
            return policy.act(observations, member=member)
        draws = noise.standard_normal((shape[0], len(observations), shape[2]))
        return policy.act(observations, draws, member=member)

    return evaluate(act, task.sim, episodes, seed)


def train(
    trainer: Trainer,
    steps: int,
    every: int,
    name: str,
    reporter: Reporter,
    journal: Journal | None,
    *,
    shown: Mapping[str, str],
    carried: Any = None,
) -> list[LogEntry]:
    """Train to the end, from the beginning or from where the journal says.

    A stage of several trainings has a ``name`` for each; ``carried`` is what earlier ones left behind.
    ``shown`` are the metrics on the progress display, with the words for them.
    """
    journal = journal or Journal()
    entries: list[LogEntry] = []
    start, figures = 0, ""
    resumed = journal.resumed
    if resumed is not None and resumed["training"] == name:
        trainer.load_state_dict(resumed["trainer"])
        start = resumed["step"]
        entries = [LogEntry(**entry) for entry in resumed["log"]]

    kept = [start] if start else []  # steps of checkpoints

    def keep(step: int, check: Check) -> None:
        def state() -> dict[str, Any]:
            check()
            return {
                "training": name,
                "trainer": trainer.state_dict(),
                "step": step,
                "log": [asdict(entry) for entry in entries],
                "carried": carried,
            }

        if journal.offer(state):
            kept.append(step)

    with reporter.stage(name, steps, start) as update:
        for entry in run_loop(
            trainer, steps, name=name, evaluate_every=every, start=start, checkpoint=keep, kept=kept
        ):
            entries.append(entry)
            journal.entry(entry.step, entry.values)
            figures = _figures(entry, shown) or figures  # of the last entry that had them
            update(entry.step, figures)
    return entries


def _figures(entry: LogEntry, shown: Mapping[str, str]) -> str:
    """The metrics that tell how a stage is doing, each averaged over the members."""
    parts = []
    for metric, label in shown.items():
        values = [
            value for key, value in entry.values.items() if key == metric or key.startswith(f"{metric}/")
        ]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.4g}")
    return "  ".join(parts)
