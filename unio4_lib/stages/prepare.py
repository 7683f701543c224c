"""From a source to checked rows in the one form that all later stages read."""

import math
from contextlib import ExitStack
from typing import Any

from unio4_lib import words
from unio4_lib.data.normalize import return_range
from unio4_lib.data.oddities import oddities
from unio4_lib.data.transitions import Transitions
from unio4_lib.progress import Reporter, Update
from unio4_lib.report.data_facts import dataset_facts
from unio4_lib.sources.remote import local_source
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.task import check_dataset

TRANSITIONS = "transitions"  # the folder of the rows


def compute(work: StageWork[Any]) -> None:
    """Load, check against the environment, and write."""
    transitions = _load(work)
    check_dataset(transitions, work.config, work.context.reporter)
    transitions.save(work.folder / TRANSITIONS)
    facts = dataset_facts(work.config.dataset, transitions)
    figures = ("transitions", "episodes", "mean_return")
    work.metrics.update({name: float(getattr(facts, name)) for name in figures})
    work.finish([], facts)


def _load(work: StageWork[Any]) -> Transitions:
    """The dataset; where it has to be collected first, that shows its progress."""
    from unio4_lib.sources.grammar import load_transitions

    reporter: Reporter = work.context.reporter

    def show(phase: str, done: int, total: int, mean_return: float) -> None:
        if phase != "train":  # which is asked after its checkpoint
            work.context.preemption.check()
        if phase not in updates:
            updates[phase] = stack.enter_context(reporter.stage(f"collect: {phase}", total))
        # Before the first episodes end there is no return yet.
        updates[phase](
            min(done, total), f"return {words.number(mean_return)}" if math.isfinite(mean_return) else ""
        )

    updates: dict[str, Update] = {}
    config = work.config
    with ExitStack() as stack:
        source = stack.enter_context(local_source(config.dataset, work.context.cache))
        transitions = load_transitions(
            source, clip_actions=config.prepare.clip_actions, progress=show, journal=work.journal
        )
    reporter.say(
        f"dataset: {transitions.num_transitions:,} transitions in {transitions.num_episodes:,} episodes of "
        f"{transitions.info.env_id}"
    )
    for oddity in oddities(transitions):
        reporter.say(f"note: {oddity}")
    if return_range(transitions) == 0:
        same = words.number(float(transitions.episode_returns()[0]))
        reporter.say(
            f"note: every episode returns {same}; reward_scaling=normal leaves such rewards unscaled"
        )
    return transitions
