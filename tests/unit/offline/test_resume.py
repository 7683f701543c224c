"""One contract for all offline trainers: equal seeds give equal bits, and stopping changes nothing."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from offline_worlds import PointMassModel, linear_policies, make_data, point_mass_transitions, same_bits

from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.judging.fqe import FittedEvaluation
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.checkpoint import load_state, save_state
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import CriticTrainer
from unio4_lib.learning.loop import Trainer, run_loop
from unio4_lib.methods.unio4.advantages import CriticAdvantages
from unio4_lib.methods.unio4.improve import ImproveTrainer
from unio4_lib.methods.unio4.learners import CriticLearner, Learner, ModelLearner
from unio4_lib.settings.fqe import FqeConfig
from unio4_lib.settings.model import (
    BehaviorConfig,
    CloningConfig,
    CriticsConfig,
    DynamicsConfig,
    ImproveConfig,
)

STEPS, EVERY = 24, 3
STOPS = (3, 7, 13, 20)
DATA = make_data(point_mass_transitions(episodes=12))


def behavior(seed: int) -> Trainer:
    return CloningTrainer(DATA, BehaviorConfig(members=2, hidden=(8,), batch_size=16, steps=STEPS), seed=seed)


def extraction(seed: int) -> Trainer:
    """Members of every kind of weight."""
    config = CloningConfig(
        members=3, weightings=("return:1", "advantage:1", "advantage:2*return:0.5"), hidden=(8,),
        batch_size=16, steps=STEPS,
    )  # fmt: skip
    advantages = DATA.observations[:, 0] - DATA.actions[:, 0]
    return CloningTrainer(DATA, config, seed=seed, advantages=advantages)


def critics(kind: Any) -> Callable[[int], CriticTrainer]:
    config = CriticsConfig(
        kind=kind,
        q_hidden=(8,),
        v_hidden=(8,),
        batch_size=16,
        steps=STEPS,
        monte_carlo_steps=7,
        refresh_every=4,
    )
    return lambda seed: CriticTrainer(DATA, config, seed=seed)


def dynamics(seed: int) -> Trainer:
    config = DynamicsConfig(members=3, elites=2, hidden=(8,), batch_size=16, steps=STEPS)
    return DynamicsTrainer(DATA, config, seed=seed, termination=None)


def improve(
    advantages: Any, anchor_every: int | None = None, gains: Sequence[float] = (0.3, 0.5, 0.1, 0.0, 0.7, 0.2)
) -> Callable[[int], ImproveTrainer]:
    """A gate that lets some candidates pass and puts others back within the test."""
    config = ImproveConfig(
        steps=STEPS, evaluate_every=EVERY, batch_size=16, learning_rate=0.02, horizon=8, starts=4, patience=2,
        confidence=0.6, margin=0.0, start_states="dataset", model_noise=True, rollouts=2,
        rollout_steps=12, episode_steps=8, value_hidden=(8,), epochs=2,
        anchor_every=anchor_every, advantages=advantages,
    )  # fmt: skip

    def make(seed: int) -> ImproveTrainer:
        model: Any = PointMassModel(noise=0.3)
        policies = linear_policies(list(gains))
        frozen = critics("iql")(0).result().requires_grad_(False)
        learner: Learner
        if advantages == "critic":
            source = CriticAdvantages(DATA, frozen, policies, config, seed=seed)
            learner = CriticLearner(policies, source, config)
        else:
            learner = ModelLearner(policies, DATA, model, config, seed=seed)
        evaluator = PolicyEvaluator(DATA, model, frozen, config, time_limit=8)
        return ImproveTrainer(policies, learner, evaluator, config, seed=seed)

    return make


def fitted(seed: int) -> FittedEvaluation:
    config = FqeConfig(steps=STEPS, hidden=(8,), batch_size=16, monte_carlo_share=0.3)
    return FittedEvaluation([linear_policies([0.3, 0.5])], DATA, config, discount=0.9, seed=seed)


TRAINERS: dict[str, Callable[[int], Any]] = {
    "behavior": behavior,
    "extraction": extraction,
    "critics-iql": critics("iql"),
    "critics-sarsa": critics("sarsa"),
    "dynamics": dynamics,
    "improve-critic": improve("critic"),
    "improve-critic-anchored": improve("critic", anchor_every=5),
    "improve-model": improve("model", gains=(0.3, 0.0, 0.7)),  # each has a PPO of its own
    "fitted-q": fitted,
}
ALL_TRAINERS = pytest.mark.parametrize("name", TRAINERS)


def run(trainer: Trainer, steps: int = STEPS, start: int = 0) -> list[tuple[int, dict[str, float]]]:
    entries = run_loop(trainer, steps, name="test", evaluate_every=EVERY, log_every=1, start=start)
    return [(entry.step, entry.values) for entry in entries]


def through_a_file(state: dict[str, Any], folder: Path) -> Any:
    """As a checkpoint keeps it."""
    save_state(folder / "state", state)
    return load_state(folder / "state")


@dataclass
class Whole:
    """A run that nobody interrupts: what it logs, how it ends, and what checkpoints on its way would have."""

    log: list[tuple[int, dict[str, float]]]
    end: Any
    states: dict[int, Any]


@cache
def whole(name: str) -> Whole:
    torch.manual_seed(1)  # the process's own generator plays no part
    trainer = TRAINERS[name](0)
    made = Whole([], None, {})
    for entry in run_loop(trainer, STEPS, name="test", evaluate_every=EVERY, log_every=1):
        made.log.append((entry.step, entry.values))
        if entry.step in STOPS:
            made.states[entry.step] = copy.deepcopy(trainer.state_dict())
    made.end = copy.deepcopy(trainer.state_dict())
    return made


@ALL_TRAINERS
def test_equal_seeds_give_equal_bits_and_others_do_not(name: str) -> None:
    """Also where nobody asked for a state on the way."""
    again, other = TRAINERS[name](0), TRAINERS[name](1)
    torch.manual_seed(2)
    assert run(again) == whole(name).log
    assert run(other) != whole(name).log
    assert same_bits(again.state_dict(), whole(name).end)
    assert not same_bits(other.state_dict(), whole(name).end)


@ALL_TRAINERS
@pytest.mark.parametrize("stop", STOPS)
def test_a_run_taken_up_again_is_the_same_run(name: str, stop: int, tmp_path: Path) -> None:
    state = through_a_file(whole(name).states[stop], tmp_path)
    resumed = TRAINERS[name](0)
    run(resumed, 5)  # a new process is less dirty than this: loading must overwrite everything
    resumed.load_state_dict(state)
    assert same_bits(resumed.state_dict(), state)
    assert run(resumed, start=stop) == whole(name).log[stop:]
    assert same_bits(resumed.state_dict(), whole(name).end)


def test_the_gate_of_these_runs_accepts_refuses_and_puts_back() -> None:
    """Otherwise resuming would say nothing about it."""
    for name in ("improve-critic", "improve-model"):
        trainer = TRAINERS[name](0)
        put_back: list[Any] = []
        original = trainer.learner.put_back
        trainer.learner.put_back = lambda *given, original=original, seen=put_back: seen.append(
            original(*given)
        )
        run(trainer)
        assert {entry.accepted for entry in trainer.log} == {True, False}, name
        assert put_back, name
