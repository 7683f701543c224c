"""One test for each of the ten things that are wrong with the published code of Uni-O4.

Each would fail if our code did as the published code does. The details of each part are tested beside
that part; here is the list.
"""

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.judging.dynamics import DynamicsTrainer, Step
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.cloning import CloningTrainer, cloning_loss
from unio4_lib.learning.critics import Critics, CriticTrainer
from unio4_lib.learning.finetune import FineTuning
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.value import ValueFunction
from unio4_lib.methods.unio4 import learners
from unio4_lib.methods.unio4.advantages import CriticAdvantages
from unio4_lib.methods.unio4.improve import ImproveTrainer
from unio4_lib.methods.unio4.learners import CriticLearner
from unio4_lib.methods.unio4.offline_policy import World, improve_policy
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import (
    BehaviorConfig,
    CriticsConfig,
    DynamicsConfig,
    ExtractConfig,
    FinetuneConfig,
    ImproveConfig,
    PrepareConfig,
)
from unio4_lib.sim import make_sim

EPISODE = 5


def make_transitions(**replaced: Any) -> Transitions:
    """40 episodes of 5 steps to the right, each from a place of its own; reward 1; ended by time alone."""
    rows = 40 * EPISODE
    ends = np.arange(rows) % EPISODE == EPISODE - 1
    x = (100.0 * (np.arange(rows) // EPISODE) + np.arange(rows) % EPISODE).astype(np.float32)[:, None]
    fields: dict[str, Any] = {
        "observations": x,
        "actions": np.random.default_rng(0).uniform(-1, 1, (rows, 1)).astype(np.float32),
        "rewards": np.ones(rows, np.float32),
        "next_observations": x + 1,
        "terminals": np.zeros(rows, np.bool_),
        "timeouts": ends,
        "info": DatasetInfo("Test-v0", {}, (-1.0,), (1.0,), "test"),
    }
    return Transitions.build(**{**fields, **replaced})


def make_data(**replaced: Any) -> OfflineData:
    config = PrepareConfig(reward_scaling="none")
    return OfflineData.build(make_transitions(**replaced), config, discount=0.9, device=torch.device("cpu"))


def make_policy(members: int = 2, std: Any = "state", observation_dim: int = 1) -> GaussianPolicy:
    spec = PolicySpec(members, observation_dim, 1, (16,), "tanh", std)
    return GaussianPolicy(spec, generator=torch.Generator().manual_seed(3))


class FirstStepFalls:
    """A model in which a positive first action is fatal; every step lived gives 1."""

    members = 2

    def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
        alive = (actions[..., 0] <= 0).float()
        return Step(observations, torch.ones(observations.shape[:-1]), alive)


class KnownEstimates:
    """Estimates drawn anew at every check and shared by candidate and accepted policy, plus a gain."""

    ways = ("mean",)

    def __init__(self, gain: float = 0.0) -> None:
        self.gain = gain

    def estimate(self, policies: GaussianPolicy, *, seed: int, starts: int | None = None) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        members = policies.spec.members
        values = (torch.randn((), generator=g) + torch.randn(16, generator=g)).expand(members, 16).clone()
        values[: members // 2] += self.gain
        return values[None]


def improve_trainer(evaluator: Any, **values: Any) -> ImproveTrainer:
    settings: dict[str, Any] = {"steps": 400, "batch_size": 16, "patience": 1000}
    config = ImproveConfig(**{**settings, **values})
    data, behavior = make_data(), make_policy()
    critics = Critics(1, 1, small_critics(), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    source = CriticAdvantages(data, critics, behavior, config, seed=0)
    learner = CriticLearner(behavior, source, config)
    return ImproveTrainer(behavior, learner, evaluator, config, seed=0)


def small_critics(**values: Any) -> CriticsConfig:
    settings: dict[str, Any] = {
        "q_hidden": (16,),
        "v_hidden": (16,),
        "batch_size": 64,
        "discount": 0.9,
        "polyak": 0.2,
        "monte_carlo_steps": 50,
        "refresh_every": 20,
        "steps": 500,
        "learning_rate": 5e-3,
    }
    return CriticsConfig(**{**settings, **values})


def equal_weights(left: GaussianPolicy, right: GaussianPolicy) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_1_the_diversity_term_has_a_gradient_of_its_own() -> None:
    """Published: its gradient is alpha times that of cloning, which Adam takes back."""
    policy, states = make_policy(4), torch.linspace(-1, 1, 20)[:, None]
    gradients = []
    for config in (BehaviorConfig(diversity="none"), BehaviorConfig(diversity="repulsion", alpha=1.0)):
        loss, _ = cloning_loss(policy.distribution(states), 0.5 * states, config)
        parts = torch.autograd.grad(loss, list(policy.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    plain, term = gradients[0], gradients[1] - gradients[0]
    parallel = torch.dot(plain, term) / plain.norm() ** 2 * plain
    assert (term - parallel).norm() > 0.5 * term.norm() > 0


def test_2_a_policy_that_falls_at_once_scores_below_one_that_lives() -> None:
    """Published: the mean of Q over the states lived, in which a fall leaves no trace."""
    policies = make_policy().requires_grad_(False)
    policies.net.output.weight.zero_()
    policies.net.output.bias[:, 0, 0] = torch.tensor([9.0, -9.0])  # the first falls, the second lives
    critics = Critics(1, 1, small_critics(), generator=torch.Generator().manual_seed(0))
    critics.shift.fill_(300.0)
    model: Any = FirstStepFalls()
    estimator: Any
    for estimator in ("return", "amq-sum"):
        config = ImproveConfig(estimator=estimator, horizon=20, starts=8, acting="mean")
        faller, survivor = PolicyEvaluator(make_data(), model, critics, config, time_limit=20).estimate(
            policies, seed=0
        )[0]
        assert (faller < 0.2 * survivor).all()
    assert ImproveConfig().estimator != "amq-mean"


def test_3_the_gate_never_compares_with_an_earlier_draw() -> None:
    """Published: a candidate's noisy score against the best noisy score so far, which only ratchets up.

    Here luck is the same for both at each check and is drawn anew for the next: equal policies are
    never exchanged, the current policy's estimate also falls, and a true gain passes after any luck.
    """
    trainer = improve_trainer(KnownEstimates())
    for trainer.steps in range(50):
        trainer.evaluate()
    current = [entry.current for entry in trainer.log if entry.member == 0]
    assert not any(entry.accepted for entry in trainer.log)
    assert any(later < earlier for earlier, later in pairwise(current))
    assert current[-1] < max(current)
    trainer.evaluator = KnownEstimates(gain=0.1)  # type: ignore[assignment]
    trainer.evaluate()
    assert [entry.accepted for entry in trainer.log[-2:]] == [True, True]


def test_4_schedules_do_not_stop_at_step_200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published: the clip decays for 200 steps and then no more. Ours is constant; the step size falls
    to the end."""
    clips: list[float] = []
    original = learners.clipped_objective

    def watch(policy: Any, batch: Any, clip: float, entropy: float) -> Any:
        clips.append(clip)
        return original(policy, batch, clip, entropy)

    monkeypatch.setattr(learners, "clipped_objective", watch)
    trainer, rates = improve_trainer(KnownEstimates()), []
    for _ in range(400):
        rates.append(float(cast(CriticLearner, trainer.learner).group.rate()))
        trainer.step()
    assert set(clips) == {trainer.config.clip}
    np.testing.assert_allclose(np.diff(rates), -trainer.config.learning_rate / 400, rtol=1e-6)
    assert rates[-1] == pytest.approx(trainer.config.learning_rate / 400)


def test_5_the_accepted_policy_is_handed_on_and_ope_alone_chooses_the_member() -> None:
    """Published: the last iterate is saved, and real episodes choose among the members."""
    config = UniO4Config(
        dataset="none",
        evaluate={"seed": 9},  # type: ignore[arg-type]
        critics=small_critics(),
        behavior=BehaviorConfig(members=2),
        extract=ExtractConfig(members=0),
        improve=ImproveConfig(
            steps=20, evaluate_every=10, horizon=5, starts=8, batch_size=16, advantages="critic",
            std_scale=1.0, margin=1e9, trust=None,
        ),
    )  # fmt: skip
    behavior, model = make_policy(), cast(Any, FirstStepFalls())
    critics = Critics(1, 1, config.critics, generator=torch.Generator().manual_seed(0))
    result = improve_policy(
        make_data(), behavior, World(critics, model, model), config, Reporter(None), time_limit=5
    )
    # A gate that is closed hands on what it began from.
    assert equal_weights(result.policies, behavior.members(result.start))
    estimates = [sum(estimate.values()) for estimate in result.estimates]
    assert result.chosen == int(np.argmax(estimates))
    assert len(result.decisions) == 2 * 2


@pytest.mark.parametrize("std", ["state", "shared"])
@pytest.mark.parametrize("std_scale", [1.0, 0.5])
def test_6_the_policy_is_the_same_on_both_sides_of_the_switch(std: Any, std_scale: float) -> None:
    """Published: the online network squashes the log std once more; std changes by up to 45 %.

    Here it changes by the factor that was asked for, the same in every state, and the mean by nothing.
    """
    offline = make_policy(2, std, observation_dim=4).requires_grad_(False)
    offline.set_scales(torch.zeros(4), torch.full((4,), 0.1), torch.tensor([-3.0]), torch.tensor([3.0]))
    config = FinetuneConfig(
        env_steps=512, num_envs=4, rollout_steps=8, minibatch_size=32, warmup_steps=64, std_scale=std_scale
    )
    tuning = FineTuning(
        offline.members([1]),
        config,
        lambda num_envs: make_sim("InvertedPendulum-v5", num_envs),
        seed=0,
    )
    try:
        tuning.advance()  # the warm-up fits V and leaves the policy alone
        rollout = tuning.ppo.collect(8)
    finally:
        tuning.close()
    gaussian = offline.distribution(offline.normalize(rollout.observations.flatten(0, 1)))
    gaussian = gaussian._replace(log_std=gaussian.log_std + math.log(std_scale))
    expected = gaussian.log_prob(rollout.actions.flatten(0, 1))[1]
    # The same numbers computed in other batches: float32 rounding of a sum of squares.
    torch.testing.assert_close(rollout.log_probs.flatten(), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_7_no_transition_crosses_the_end_of_an_episode() -> None:
    """Published: the successor is row t + 1, so the model learns "fall, then stand at the start"."""
    trainer = DynamicsTrainer(
        make_data(), DynamicsConfig(members=2, elites=2, hidden=(8,)), seed=0, termination=None
    )
    changes = trainer.targets[:, 0] * trainer.model.target_std[0] + trainer.model.target_mean[0]
    changes = changes * trainer.data.observation_std  # of the environment: all are steps of 1
    torch.testing.assert_close(changes, torch.ones_like(changes), rtol=1e-2, atol=0)
    rows = make_transitions()
    unmarked = rows.timeouts.copy()
    unmarked[EPISODE - 1] = False  # an end that nobody marked is no successor either, but an error
    with pytest.raises(InputError, match="next_observations: row 4"):
        make_transitions(timeouts=unmarked)


def test_8_the_value_function_follows_large_returns() -> None:
    """Published: V moves by at most 0.05 reward units in a batch; with returns of 3000 it stands still."""
    policy = make_policy(1, observation_dim=4)
    config = FinetuneConfig(env_steps=512, num_envs=2, rollout_steps=8, minibatch_size=16, warmup_steps=0)
    value = ValueFunction.create(4, (16,), generator=torch.Generator().manual_seed(0))
    sim = make_sim("InvertedPendulum-v5", 2)
    try:
        ppo = PPO(policy, value, sim, config, seed=0)
        rollout = ppo.collect(8)
    finally:
        sim.close()
    observations = rollout.observations.flatten(0, 1)
    observations = (observations - observations.mean(dim=0)) / observations.std(dim=0)
    returns = 3000.0 + 300.0 * observations[:, 0]
    value.rescale(returns)  # as every update does first
    before = value(observations).detach()
    ppo.fit_value(observations, returns, 20)  # twenty gradient steps
    moved = (value(observations).detach() - before).abs()
    assert moved.max() > 10.0  # with the published clip: 0.05 and what Adam overshoots


@pytest.mark.parametrize("kind", ["iql", "sarsa"])
def test_9_both_critics_agree_and_see_beyond_time_limits(kind: Any) -> None:
    """Published: one dataset gets IQL and the next SARSA, and both take a timeout for the end.

    Reward 1 forever, cut after 5 steps: V = 1 / (1 - 0.9) = 10, of which the cut leaves at most 4.1.
    """
    rows = 40 * EPISODE
    still = np.ones((rows, 1), np.float32)
    data = make_data(observations=still, next_observations=still)
    config = small_critics(kind=kind, expectile=0.5, steps=700, monte_carlo_steps=50)
    trainer = CriticTrainer(data, config, seed=0)
    for _ in range(config.steps):
        trainer.step()
    assert data.returns.max() < 4.1
    assert trainer.critics.values(data.observations[:1]).item() == pytest.approx(10.0, abs=0.3)


class CountOperations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operations_of(stage: str, members: int) -> list[str]:
    """Operations of the second step of a trainer (the first allocates)."""
    trainer: Any
    if stage == "behavior":
        trainer = CloningTrainer(make_data(), BehaviorConfig(members=members, hidden=(8,)), seed=0)
    elif stage == "dynamics":
        config = DynamicsConfig(members=members, elites=1, hidden=(8,))
        trainer = DynamicsTrainer(make_data(), config, seed=0, termination=None)
    elif stage == "critics":
        trainer = CriticTrainer(make_data(), small_critics(monte_carlo_steps=0), seed=0)
    else:
        behavior = make_policy(members)
        critics = Critics(1, 1, small_critics(), generator=torch.Generator().manual_seed(0))
        source = CriticAdvantages(
            make_data(), critics.requires_grad_(False), behavior, ImproveConfig(), seed=0
        )
        evaluator: Any = KnownEstimates()
        learner = CriticLearner(behavior, source, ImproveConfig())
        trainer = ImproveTrainer(behavior, learner, evaluator, ImproveConfig(), seed=0)
    trainer.step()
    with CountOperations() as count:
        trainer.step()
    return count.names


@pytest.mark.parametrize("stage", ["behavior", "critics", "dynamics", "improve"])
def test_10_a_step_costs_arithmetic_and_not_overhead(stage: str) -> None:
    """Published: members one after another, ensembles copied at every step, numbers fetched at every step.

    Here 8 members take exactly as many operations as 2, and no step waits for a number.
    """
    two, eight = operations_of(stage, 2), operations_of(stage, 8)
    assert len(two) == len(eight) > 20
    assert not [name for name in eight if "_local_scalar_dense" in name]
