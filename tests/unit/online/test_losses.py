"""What each loss reaches, and the running unit of the values."""

import pytest
import torch

from unio4_lib.learning.ppo import remaining_fraction, value_loss
from unio4_lib.learning.surrogate import clipped_surrogate
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec


def test_each_loss_reaches_its_own_parameters_only() -> None:
    g = torch.Generator().manual_seed(0)
    policy = GaussianPolicy(PolicySpec(1, 3, 2, (8,)), generator=g)
    value = ValueFunction.create(3, (8,), generator=g)
    observations, actions = torch.randn(6, 3, generator=g), torch.randn(6, 2, generator=g)
    gaussian = policy.distribution(observations)
    old = gaussian.log_prob(actions)[0].detach()
    weights = torch.randn(6, generator=g)
    clipped_surrogate(gaussian, actions, old, weights, clip=0.2, entropy=0.01).loss.sum().backward()
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
