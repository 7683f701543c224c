"""The equations of PPO against definitions, finite differences and hand-made cases."""

import pytest
import torch
from torch import Tensor

from unio4_lib.nets.policy import Gaussian, GaussianPolicy, PolicySpec
from unio4_lib.online.ppo import (
    generalized_advantages,
    ppo_policy_loss,
    remaining_fraction,
    standardize_advantages,
    value_loss,
)
from unio4_lib.online.value import ValueFunction


def advantages_by_definition(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminals: Tensor,
    ends: Tensor,
    discount: float,
    lam: float,
) -> Tensor:
    """Sum of (discount lam)^k delta_{t+k} up to and with the end of the episode or of the batch."""
    result = torch.zeros_like(rewards)
    for env in range(rewards.shape[1]):
        for t in range(len(rewards)):
            weight = 1.0
            for k in range(t, len(rewards)):
                future = 0.0 if terminals[k, env] else float(next_values[k, env])
                delta = float(rewards[k, env]) + discount * future - float(values[k, env])
                result[t, env] += weight * delta
                weight *= discount * lam
                if ends[k, env]:
                    break
    return result


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_advantages_equal_their_definition(discount: float, lam: float) -> None:
    g = torch.Generator().manual_seed(1)
    rewards, values, next_values = torch.randn(3, 30, 4, generator=g, dtype=torch.float64)
    terminals = torch.rand(30, 4, generator=g) < 0.1
    ends = terminals | (torch.rand(30, 4, generator=g) < 0.15)
    terminals[-1, 0], ends[-1, 0] = True, True  # an end on the last row
    ends[-1, 1], terminals[-1, 1] = True, False
    assert terminals[:-1].any()
    assert (ends & ~terminals)[:-1].any()
    arguments = (rewards, values, next_values, terminals, ends, discount, lam)
    torch.testing.assert_close(generalized_advantages(*arguments), advantages_by_definition(*arguments))


def test_advantages_stop_at_both_kinds_of_end_and_bootstrap_at_one() -> None:
    """Three steps by hand, discount 0.5, lambda 1, V(s') = 8 everywhere, V(s) = 0, reward 1."""
    ones, zeros = torch.ones(3, 1), torch.zeros(3, 1)
    middle = torch.tensor([[False], [True], [False]])
    never = torch.zeros(3, 1, dtype=torch.bool)
    terminal = generalized_advantages(ones, zeros, 8 * ones, middle, middle, 0.5, 1.0)
    timeout = generalized_advantages(ones, zeros, 8 * ones, never, middle, 0.5, 1.0)
    torch.testing.assert_close(terminal.flatten(), torch.tensor([5.0 + 0.5 * 1.0, 1.0, 5.0]))
    torch.testing.assert_close(timeout.flatten(), torch.tensor([5.0 + 0.5 * 5.0, 5.0, 5.0]))


def test_advantages_are_standardized_over_the_whole_batch() -> None:
    raw = torch.arange(12.0).view(3, 4) * 100
    expected = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(standardize_advantages(raw), expected)
    assert torch.equal(standardize_advantages(torch.full((3, 4), 5.0)), torch.zeros(3, 4))


def one_row(mean: Tensor, old_mean: float, advantage: float, clip: float = 0.2) -> Tensor:
    """Loss of one action 0.3 under a unit-variance policy around ``mean``."""
    log_std, action = torch.zeros(1, 1, 1, dtype=mean.dtype), torch.full((1, 1), 0.3, dtype=mean.dtype)
    old = Gaussian(torch.full((1, 1, 1), old_mean, dtype=mean.dtype), log_std).log_prob(action)[0]
    weight = torch.full((1,), advantage, dtype=mean.dtype)
    return ppo_policy_loss(Gaussian(mean, log_std), action, old, weight, clip=clip, entropy=0.0)[0]


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("position", [-0.6, -0.1, 0.0, 0.1, 0.29, 0.9])
def test_policy_gradient_by_finite_differences(position: float, advantage: float) -> None:
    mean = torch.full((1, 1, 1), position, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(one_row(mean, 0.0, advantage, clip=0.02), mean)
    step = 1e-6
    with torch.no_grad():
        ahead = one_row(mean + step, 0.0, advantage, clip=0.02)
        behind = one_row(mean - step, 0.0, advantage, clip=0.02)
    if position == 0.0:  # ratio 1, inside the clip: the plain policy gradient -A * z
        assert gradient.item() == pytest.approx(-advantage * 0.3)
    assert gradient.item() == pytest.approx(float(ahead - behind) / (2 * step), abs=1e-8)


def test_clip_stops_only_the_gain() -> None:
    """Beyond the clip no further reward; on the losing side the gradient stays."""

    def slope(position: float, advantage: float) -> float:
        mean = torch.full((1, 1, 1), position, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(one_row(mean, -0.5, advantage), mean)[0].item()

    # The mean 0.2 makes the action 0.3 more likely than the old mean -0.5 did: ratio above 1.2.
    assert slope(0.2, advantage=1.0) == 0.0
    assert slope(0.2, advantage=-1.0) > 0.0  # descent moves the mean away from a bad action
    assert slope(-1.5, advantage=-1.0) == 0.0  # ratio below 0.8
    assert slope(-1.5, advantage=1.0) < 0.0  # descent moves the mean toward a good action


def test_entropy_bonus_widens_the_policy() -> None:
    log_std = torch.full((1, 5, 1), -1.0, requires_grad=True)
    gaussian = Gaussian(torch.zeros(1, 5, 1), log_std)
    actions, zeros = torch.zeros(5, 1), torch.zeros(5)
    loss, _ = ppo_policy_loss(gaussian, actions, zeros, zeros, clip=0.2, entropy=0.1)
    loss.backward()
    torch.testing.assert_close(log_std.grad, torch.full((1, 5, 1), -0.1 / 5))


def test_each_loss_reaches_its_own_parameters_only() -> None:
    g = torch.Generator().manual_seed(0)
    policy = GaussianPolicy(PolicySpec(1, 3, 2, (8,)), generator=g)
    value = ValueFunction.create(3, (8,), generator=g)
    observations, actions = torch.randn(6, 3, generator=g), torch.randn(6, 2, generator=g)
    gaussian = policy.distribution(observations)
    old = gaussian.log_prob(actions)[0].detach()
    ppo_policy_loss(gaussian, actions, old, torch.randn(6, generator=g), clip=0.2, entropy=0.01)[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in policy.parameters())
    assert all(parameter.grad is None for parameter in value.parameters())
    policy.zero_grad(set_to_none=True)
    value_loss(value, observations, torch.randn(6, generator=g))[0].backward()
    assert all(parameter.grad is not None for parameter in value.parameters())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_rescaling_changes_no_prediction() -> None:
    g = torch.Generator().manual_seed(0)
    value, observations = ValueFunction.create(3, (8,), generator=g), torch.randn(20, 3, generator=g)
    value.rescale(torch.randn(50, generator=g) * 7 + 100)
    assert value.mean.item() == pytest.approx(100, abs=3)
    assert value.std.item() == pytest.approx(7, rel=0.3)
    before = value(observations)
    value.rescale(torch.randn(50, generator=g) * 70 + 300)
    assert value.mean.item() > 110
    torch.testing.assert_close(value(observations), before, rtol=1e-5, atol=1e-3)


def test_running_scale_is_the_mixture_of_old_and_new() -> None:
    value = ValueFunction.create(1, (4,), generator=torch.Generator().manual_seed(0))
    value.rescale(torch.tensor([-1.0, 1.0]))
    value.rescale(torch.tensor([9.0, 11.0]))
    # Nine parts of mean 0, one part of mean 10, variance 1 each.
    assert value.mean.item() == pytest.approx(1.0)
    assert value.std.item() ** 2 == pytest.approx(0.9 * (1 + 1.0**2) + 0.1 * (1 + 9.0**2), rel=1e-5)


def test_learning_rate_falls_to_zero_and_stays_there() -> None:
    assert [remaining_fraction(step, 100) for step in (0, 25, 100, 150)] == [1.0, 0.75, 0.0, 0.0]
