"""The paper's minibatches: bookkeeping against loops."""

from typing import Any

import pytest
import torch
from offline_worlds import (
    FunctionCritics,
    linear_policies,
    make_data,
    point_mass_transitions,
    same_bits,
)
from torch import Tensor

from unio4_lib.methods.unio4.advantages import CriticAdvantages, standardize
from unio4_lib.settings.model import ImproveConfig

DATA = make_data(point_mass_transitions(episodes=10))


def make_config(**values: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "batch_size": 32,
        "anchor_every": 3,
    }
    return ImproveConfig(**{**settings, **values})


def test_advantages_are_standardized_for_each_member() -> None:
    raw = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [100.0], [0.1]]
    )
    result = standardize(raw + 7)
    torch.testing.assert_close(result.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(dim=1, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert torch.equal(standardize(torch.full((2, 5), 3.0)), torch.zeros(2, 5))


def test_critic_minibatches_are_anchor_actions_on_dataset_states() -> None:
    def q(observations: Tensor, actions: Tensor) -> Tensor:
        return 3.0 * actions.clamp(-1, 1)[..., 0] + observations[..., 0]

    critics: Any = FunctionCritics(q, lambda s: s[..., 0].square())
    policy = linear_policies([0.5, 2.0])
    source = CriticAdvantages(DATA, critics, policy, make_config(), seed=0)
    batch = source.next(policy)
    assert batch.observations.shape == (2, 32, 1)
    assert torch.isin(batch.observations, DATA.observations).all()
    assert torch.equal(batch.observations[0], batch.observations[1])  # states are shared, as in the paper
    gaussian = policy.distribution(batch.observations)
    torch.testing.assert_close(batch.log_probs, gaussian.log_prob(batch.actions))
    z = (batch.actions - gaussian.mean) / gaussian.log_std.exp()
    assert z.std().item() == pytest.approx(1.0, abs=0.3)  # 64 draws
    assert not torch.equal(z[0], z[1])
    states = batch.observations[..., 0]
    raw = 3.0 * batch.actions[..., 0].clamp(-1, 1) + states - states.square()
    torch.testing.assert_close(batch.advantages, standardize(raw))


def anchor_gains(source: CriticAdvantages) -> list[float]:
    return (-source.anchor.net.output.weight[:, 0, 0]).tolist()


def test_the_anchor_is_renewed_on_time_or_for_the_members_that_the_gate_names() -> None:
    critics: Any = FunctionCritics(lambda s, a: a[..., 0], lambda s: s[..., 0])
    for every, expected in ((3, [0, 0, 0, 3, 3, 3, 6]), (None, [-1, -1, -1, -1, -1, -1, -1])):
        config = make_config(anchor_every=every)
        source = CriticAdvantages(DATA, critics, linear_policies([-1.0, -1.0]), config, seed=0)
        gains = []
        for number in range(7):
            source.next(linear_policies([float(number), float(number)]))
            gains.append(anchor_gains(source)[0])
        assert gains == expected
        before = anchor_gains(source)
        source.renew(torch.tensor([False, True]), linear_policies([9.0, 8.0]))
        assert anchor_gains(source) == [before[0], 8.0]
        assert not any(parameter.requires_grad for parameter in source.anchor.parameters())


def test_equal_seeds_give_equal_minibatches() -> None:
    policies = linear_policies([0.5, 1.0])
    critics: Any = FunctionCritics(lambda s, a: a[..., 0], lambda s: s[..., 0])
    drawn = []
    for seed in (0, 0, 1):
        source = CriticAdvantages(DATA, critics, policies, make_config(), seed=seed)
        drawn.append([tuple(source.next(policies)) for _ in range(4)])
    assert same_bits(drawn[0], drawn[1])
    assert not same_bits(drawn[0], drawn[2])
