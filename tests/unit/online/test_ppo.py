"""The learner on a task with a known optimum, its randomness and its state."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from point_mass import EPISODE_STEPS, STEP, PointMass, make_ppo

from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.rollout import Rollout
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim import make_sim


def parameters(ppo: PPO) -> list[torch.Tensor]:
    return [tensor for module in (ppo.policy, ppo.value) for tensor in module.state_dict().values()]


def assert_same_bits(left: PPO, right: PPO) -> None:
    assert all(torch.equal(a, b) for a, b in zip(parameters(left), parameters(right), strict=True))


def deterministic_reward(ppo: PPO) -> float:
    """Mean reward of whole episodes with the policy's mean action."""
    sim = PointMass(64)
    observations, rewards = sim.reset(123), []
    for _ in range(10 * EPISODE_STEPS):
        result = sim.step(ppo.policy.act(observations))
        observations = result.observations
        rewards.append(result.rewards.mean())
    return float(np.mean(rewards))


def optimal_reward() -> float:
    """The same for a = -x / STEP, clamped, which removes as much of x as one step can."""
    sim = PointMass(64)
    observations, rewards = sim.reset(123), []
    for _ in range(10 * EPISODE_STEPS):
        result = sim.step(np.clip(-observations / STEP, -1, 1))
        observations = result.observations
        rewards.append(result.rewards.mean())
    return float(np.mean(rewards))


@pytest.mark.parametrize("normalize", ["frozen", "running"])
def test_a_point_mass_is_driven_to_the_origin(normalize: Any) -> None:
    ppo = make_ppo(normalize=normalize)
    start = deterministic_reward(ppo)
    while ppo.env_steps < ppo.config.env_steps:
        ppo.train()
    best = optimal_reward()
    assert start < best - 0.2
    assert deterministic_reward(ppo) > best - 0.02


def mean_value_of_constant_reward(break_bootstrap: bool) -> float:
    """V after training on reward 1 forever, where only time limits end episodes."""
    ppo = make_ppo(sim=PointMass(reward=1.0), env_steps=10**6, actor_learning_rate=1e-6)
    for _ in range(40):
        rollout = ppo.collect(32)
        assert (rollout.episode_ends & ~rollout.terminals).any()
        if break_bootstrap:
            rollout = Rollout(**{**vars(rollout), "terminals": rollout.episode_ends})
        ppo.update(rollout)
    with torch.no_grad():
        return ppo.value(ppo.policy.normalize(rollout.observations).flatten(0, 1)).mean().item()


def test_time_limits_do_not_end_the_value() -> None:
    limit = 1.0 / (1.0 - 0.9)
    assert mean_value_of_constant_reward(break_bootstrap=False) == pytest.approx(limit, rel=0.05)
    # Time limits taken for deaths: (1 - 0.9^20) / 0.1 at the start of an episode, 1 at its end.
    assert mean_value_of_constant_reward(break_bootstrap=True) < 0.75 * limit


def test_the_stored_density_is_that_of_the_unclamped_sample() -> None:
    ppo = make_ppo()
    with torch.no_grad():
        ppo.policy.raw_std.fill_(3.0)  # std close to 1: many samples leave the box
    rollout = ppo.collect(16)
    sim = ppo.collector.sim
    assert isinstance(sim, PointMass)
    applied = np.stack(sim.seen_actions)
    assert (rollout.actions.abs() > 1.0).any()
    # Scaling from the unit box to the bounds rounds once in float32.
    np.testing.assert_allclose(applied, rollout.actions.clamp(-1, 1).numpy(), atol=1e-7)
    gaussian = ppo.policy.distribution(ppo.policy.normalize(rollout.observations).flatten(0, 1))
    log_probs = gaussian.log_prob(rollout.actions.flatten(0, 1))[0]
    torch.testing.assert_close(log_probs, rollout.log_probs.flatten())


@pytest.mark.parametrize("normalize", ["frozen", "running"])
def test_the_ratio_of_a_fresh_batch_is_one(normalize: Any) -> None:
    """The first minibatch of an update is the whole batch here, seen before the first gradient step."""
    ppo = make_ppo(normalize=normalize, epochs=1, minibatch_size=256)
    for _ in range(4):
        metrics = ppo.train()
        # Matrix products of 8 and of 256 rows may round differently in the last bits.
        assert metrics["policy/kl"].item() == pytest.approx(0.0, abs=1e-6)
        assert metrics["policy/loss"].item() == pytest.approx(0.0, abs=1e-5)  # -mean of the advantages
        assert metrics["policy/clip_fraction"].item() == 0.0


def test_successors_are_those_before_the_reset() -> None:
    ppo = make_ppo()
    rollout = ppo.collect(40)
    assert rollout.episode_ends.any()
    moved = rollout.observations + STEP * rollout.actions.clamp(-1, 1)
    torch.testing.assert_close(rollout.next_observations, moved)
    same = (rollout.next_observations[:-1] == rollout.observations[1:]).squeeze(-1)
    assert torch.equal(same, ~rollout.episode_ends[:-1])


def test_returns_of_finished_episodes() -> None:
    ppo = make_ppo(sim=PointMass(reward=2.0))
    ppo.collect(5 * EPISODE_STEPS)
    whole = [n for n in ppo.collector.recent_lengths if n == EPISODE_STEPS]
    assert len(whole) >= 8 * 3
    assert list(ppo.collector.recent_returns) == [2.0 * n for n in ppo.collector.recent_lengths]


@pytest.mark.parametrize("normalize", ["frozen", "running"])
def test_equal_seeds_give_equal_bits(normalize: Any) -> None:
    left, right, other = (make_ppo(seed, normalize=normalize) for seed in (3, 3, 4))
    for _ in range(4):
        for ppo in (left, right, other):
            ppo.train()
    assert_same_bits(left, right)
    assert not torch.equal(parameters(left)[0], parameters(other)[0])


@pytest.mark.parametrize("normalize", ["frozen", "running"])
def test_a_resumed_run_is_the_same_run(normalize: Any) -> None:
    whole, resumed = make_ppo(3, normalize=normalize), make_ppo(99, normalize=normalize)
    for _ in range(3):
        whole.train()
    state = whole.state_dict()
    untouched = copy.deepcopy(state)
    for _ in range(3):
        whole.train()
    resumed.load_state_dict(state)
    for _ in range(3):
        resumed.train()
    assert_same_bits(whole, resumed)
    assert list(whole.collector.recent_returns) == list(resumed.collector.recent_returns)
    for name, tensor in untouched["policy"].items():  # the saved state does not follow the run
        assert torch.equal(tensor, state["policy"][name])


def test_a_resumed_run_in_mujoco_is_the_same_run() -> None:
    def learner(seed: int) -> PPO:
        generator = torch.Generator().manual_seed(seed)
        policy = GaussianPolicy(PolicySpec(1, 11, 3, (16,)), generator=generator)
        value = ValueFunction.create(11, (16,), generator=generator)
        config = FinetuneConfig(num_envs=4, rollout_steps=32, minibatch_size=64, epochs=2)
        return PPO(policy, value, make_sim("Hopper-v5", 4), config, seed=seed)

    whole, resumed = learner(0), learner(1)
    for _ in range(3):
        whole.train()
    resumed.load_state_dict(whole.state_dict())
    for _ in range(3):
        whole.train()
        resumed.train()
    assert len(whole.collector.recent_returns) > 0  # episodes began and ended on the way
    assert_same_bits(whole, resumed)


def test_frozen_statistics_stay_and_running_ones_follow() -> None:
    frozen, running = make_ppo(normalize="frozen"), make_ppo(normalize="running")
    rows = []
    for _ in range(3):
        frozen.train()
        rows.append(running.collect(32))
        running._follow_observations(rows[-1].observations)
    assert frozen.policy.observation_mean.item() == 0.0
    assert frozen.policy.observation_std.item() == 1.0
    seen = torch.cat([rollout.observations.flatten() for rollout in rows])
    assert running.policy.observation_mean.item() == pytest.approx(seen.mean().item(), abs=1e-6)
    assert running.policy.observation_std.item() == pytest.approx(seen.std(correction=0).item(), rel=1e-5)


def test_target_kl_ends_the_epochs_of_the_policy_alone() -> None:
    ppo = make_ppo(epochs=10, actor_learning_rate=0.05, target_kl=0.01)
    metrics = ppo.train()
    assert metrics["policy/epochs"].item() < 10
    assert ppo.value_group.taken == 10 * 4


def test_learning_rates_are_annealed_by_the_step() -> None:
    ppo = make_ppo(env_steps=512)
    rates = []
    for _ in range(3):
        ppo.train()
        rates.append(ppo.policy_group.learning_rate)
    assert rates == pytest.approx([3e-3 * 0.5, 0.0, 0.0])


def test_an_ensemble_is_refused() -> None:
    ppo = make_ppo()
    two = GaussianPolicy(PolicySpec(2, 1, 1, (8,)))
    with pytest.raises(ValueError, match="found 2 members"):
        PPO(two, ppo.value, PointMass(), ppo.config, seed=0)
