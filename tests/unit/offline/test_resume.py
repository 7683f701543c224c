"""One contract for all offline trainers: equal seeds give equal bits, and stopping changes nothing."""

from collections.abc import Callable
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


def improve(advantages: Any, anchor_every: int | None = None) -> Callable[[int], ImproveTrainer]:
    """A gate that lets some candidates pass and puts others back within the test."""
    config = ImproveConfig(
        steps=STEPS, evaluate_every=EVERY, batch_size=16, learning_rate=0.02, horizon=8, starts=4, patience=2,
        confidence=0.6, margin=0.0, start_states="dataset", model_noise=True, rollouts=4,
        rollout_steps=12, episode_steps=8, value_hidden=(8,), epochs=3,
        anchor_every=anchor_every, advantages=advantages,
    )  # fmt: skip

    def make(seed: int) -> ImproveTrainer:
        model: Any = PointMassModel(noise=0.3)
        policies = linear_policies([0.3, 0.5, 0.1, 0.0, 0.7, 0.2])
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
    "improve-model": improve("model"),
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


@ALL_TRAINERS
def test_equal_seeds_give_equal_bits_and_others_do_not(name: str) -> None:
    make = TRAINERS[name]
    first, again, other = make(0), make(0), make(1)
    # The process's own generator plays no part.
    torch.manual_seed(1)
    log = run(first)
    torch.manual_seed(2)
    assert run(again) == log
    assert run(other) != log
    assert same_bits(first.state_dict(), again.state_dict())
    assert not same_bits(first.state_dict(), other.state_dict())


@ALL_TRAINERS
@pytest.mark.parametrize("stop", [3, 7, 13, 20])
def test_a_run_taken_up_again_is_the_same_run(name: str, stop: int, tmp_path: Path) -> None:
    make = TRAINERS[name]
    whole = make(0)
    log = run(whole)
    state = through_a_file(stopped_at(make, stop), tmp_path)
    resumed = make(0)
    run(resumed, 5)  # a new process is less dirty than this: loading must overwrite everything
    resumed.load_state_dict(state)
    assert same_bits(resumed.state_dict(), state)
    assert run(resumed, start=stop) == log[stop:]
    assert same_bits(resumed.state_dict(), whole.state_dict())


def stopped_at(make: Callable[[int], Any], stop: int) -> dict[str, Any]:
    """State of a run that died right after ``stop`` steps, as its checkpoint has it."""
    trainer, states = make(0), {}
    for entry in run_loop(
        trainer,
        STEPS,
        name="test",
        evaluate_every=EVERY,
        log_every=1,
        checkpoint=lambda step: states.update({step: trainer.state_dict()}) if step == stop else None,
    ):
        if entry.step > stop:
            raise AssertionError("went on without a checkpoint")
        if entry.step == stop:
            break
    return states.get(stop) or trainer.state_dict()


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
