"""The offline chain as a whole, on a point mass whose best return is known."""

from typing import Literal

import pytest
import torch
from offline_worlds import make_data, point_mass_transitions, true_returns

from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import CriticTrainer
from unio4_lib.methods.unio4.advantages import CriticAdvantages
from unio4_lib.methods.unio4.improve import ImproveTrainer, rank
from unio4_lib.methods.unio4.learners import CriticLearner, Learner, ModelLearner
from unio4_lib.settings.model import BehaviorConfig, CriticsConfig, DynamicsConfig, ImproveConfig


@pytest.mark.parametrize("advantages", ["critic", "model"])
def test_the_whole_of_the_method_improves_a_clone(
    advantages: Literal["critic", "model"],
) -> None:
    """Cloning, critics, dynamics, gate: from a behavior that drives to the wrong place (return about 12
    of at most 20) toward the origin, without a look at the truth."""
    data = make_data(point_mass_transitions(episodes=60))
    cloning = CloningTrainer(
        data,
        BehaviorConfig(
            members=2, hidden=(32,), activation="tanh", batch_size=64, learning_rate=5e-3, alpha=0.1
        ),
        seed=0,
    )
    for _ in range(300):
        cloning.step()
    behavior = cloning.policy.requires_grad_(False)
    dynamics = DynamicsTrainer(
        data,
        DynamicsConfig(members=4, elites=4, hidden=(32, 32), steps=500, batch_size=64, learning_rate=5e-3),
        seed=0,
        termination=lambda observations: torch.zeros(observations.shape[:-1], dtype=torch.bool),
    )
    for _ in range(500):
        dynamics.step()
    training, judging = dynamics.result().halves()
    critics_config = CriticsConfig(
        q_hidden=(32,), v_hidden=(32,), discount=0.9, steps=800, monte_carlo_steps=100, batch_size=128,
        learning_rate=5e-3, polyak=0.1,
    )  # fmt: skip
    fitting = CriticTrainer(data, critics_config, seed=0)
    for _ in range(800 if advantages == "critic" else 1):
        fitting.step()
    critics = fitting.result().requires_grad_(False)
    steps, every = (300, 30) if advantages == "critic" else (30, 3)
    config = ImproveConfig(
        steps=steps, evaluate_every=every, learning_rate=3e-3, starts=32, rollouts=32, rollout_steps=20,
        episode_steps=20, rollout_discount=0.9, batch_size=200, advantages=advantages, horizon=20,
        model_noise=True, clip=0.25, value_hidden=(16,),
    )  # fmt: skip
    evaluator = PolicyEvaluator(data, judging, critics, config, time_limit=20)
    learner: Learner
    if advantages == "critic":
        source = CriticAdvantages(data, critics, behavior, config, seed=0)
        learner = CriticLearner(behavior, source, config)
    else:
        learner = ModelLearner(behavior, data, training, config, seed=0)
    trainer = ImproveTrainer(behavior, learner, evaluator, config, seed=0)
    for step in range(1, steps + 1):
        trainer.step()
        if step % every == 0:
            trainer.evaluate()
    before, after = (true_returns(policy, steps=20) for policy in (behavior, trainer.accepted))
    assert (after > before + 1.0).all()
    estimates = evaluator.estimate(trainer.accepted, seed=1, starts=256)
    assert after[rank(estimates)[0]] > after.max() - 0.3
    # And the models say the truth.
    torch.testing.assert_close(estimates[0].mean(dim=1), after, atol=1.0, rtol=0)
