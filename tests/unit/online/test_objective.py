"""The objective of both phases against slow plain definitions, finite differences and hand-made cases."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unio4_lib.learning.surrogate import clipped_surrogate, generalized_advantages, standardize_advantages
from unio4_lib.methods.unio4.advantages import Minibatch
from unio4_lib.methods.unio4.learners import clipped_objective
from unio4_lib.nets.policy import Gaussian, GaussianPolicy, PolicySpec

LIBRARY = Path(__file__).parents[3] / "unio4_lib"


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
    return clipped_surrogate(Gaussian(mean, log_std), action, old, weight, clip=clip, entropy=0.0).loss[0]


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
    clipped_surrogate(gaussian, actions, zeros, zeros, clip=0.2, entropy=0.1).loss.sum().backward()
    torch.testing.assert_close(log_std.grad, torch.full((1, 5, 1), -0.1 / 5))


def surrogate_by_definition(
    gaussian: Gaussian, actions: Tensor, old: Tensor, advantages: Tensor, clip: float, entropy: float
) -> tuple[list[float], list[float], list[float]]:
    """Loss, KL and clip fraction of each policy, number by number."""
    losses, kls, fractions = [], [], []
    for e in range(len(gaussian.mean)):
        gains, divergences, beyond, entropies = [], [], [], []
        for b in range(gaussian.mean.shape[1]):
            log_prob, spread = 0.0, 0.0
            for a in range(gaussian.mean.shape[2]):
                std = math.exp(gaussian.log_std[e, b, a].item())
                distance = (actions[e, b, a].item() - gaussian.mean[e, b, a].item()) / std
                log_prob += -0.5 * distance**2 - math.log(std * math.sqrt(2 * math.pi))
                spread += 0.5 * math.log(2 * math.pi * math.e * std**2)
            ratio, advantage = math.exp(log_prob - old[e, b].item()), advantages[e, b].item()
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            gains.append(min(ratio * advantage, clipped * advantage))
            divergences.append(ratio - 1 - math.log(ratio))
            beyond.append(abs(ratio - 1) > clip)
            entropies.append(spread)
        rows = len(gains)
        losses.append(-sum(gains) / rows - entropy * sum(entropies) / rows)
        kls.append(sum(divergences) / rows)
        fractions.append(sum(beyond) / rows)
    return losses, kls, fractions


def some_minibatch(members: int) -> tuple[Gaussian, Minibatch]:
    """Policies that have left the one that acted; the observations are the means themselves."""
    g = torch.Generator().manual_seed(3)
    mean, away, noise = torch.randn(3, members, 40, 2, generator=g, dtype=torch.float64)
    log_std = -1.0 + 0.3 * torch.randn(members, 40, 2, generator=g, dtype=torch.float64)
    acted = Gaussian(mean + 0.1 * away, log_std)
    actions = acted.sample(noise)
    advantages = torch.randn(members, 40, generator=g, dtype=torch.float64)
    return Gaussian(mean, log_std), Minibatch(mean, actions, acted.log_prob(actions), advantages)


@pytest.mark.parametrize("entropy", [0.0, 0.1])
@pytest.mark.parametrize("members", [1, 3])
def test_the_surrogate_equals_its_definition(members: int, entropy: float) -> None:
    gaussian, (_, actions, old, advantages) = some_minibatch(members)
    found = clipped_surrogate(gaussian, actions, old, advantages, clip=0.2, entropy=entropy)
    expected = surrogate_by_definition(gaussian, actions, old, advantages, 0.2, entropy)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torch.tensor(plain, dtype=torch.float64))
    assert all(0 < fraction < 1 for fraction in found.clip_fraction.tolist())


def test_one_policy_may_go_without_the_leading_axis() -> None:
    gaussian, (_, actions, old, advantages) = some_minibatch(1)
    whole = clipped_surrogate(gaussian, actions, old, advantages, clip=0.2, entropy=0.1)
    flat = clipped_surrogate(gaussian, actions[0], old[0], advantages[0], clip=0.2, entropy=0.1)
    assert all(torch.equal(left, right) for left, right in zip(whole, flat, strict=True))


def test_the_offline_objective_is_the_surrogate_summed_over_members() -> None:
    g = torch.Generator().manual_seed(0)
    policy = GaussianPolicy(PolicySpec(3, 2, 2, (8,)), generator=g).double()
    batch = some_minibatch(3)[1]
    batch = batch._replace(log_probs=policy.distribution(batch.observations).log_prob(batch.actions) - 0.1)
    loss, metrics = clipped_objective(policy, batch, 0.2, 0.05)
    gaussian = policy.distribution(batch.observations)
    losses, kls, fractions = surrogate_by_definition(gaussian, *batch[1:], 0.2, 0.05)
    assert loss.item() == pytest.approx(sum(losses))
    assert metrics["improve/kl"].tolist() == pytest.approx(kls)
    assert metrics["improve/clip_fraction"].tolist() == pytest.approx(fractions)


def test_there_is_one_clipped_ratio_and_one_recursion_of_advantages() -> None:
    sources = {str(path.relative_to(LIBRARY)): path.read_text() for path in LIBRARY.rglob("*.py")}
    for phrase in ("1.0 + clip", "discount * lam"):
        assert [name for name, text in sources.items() if phrase in text] == ["learning/surrogate.py"]
