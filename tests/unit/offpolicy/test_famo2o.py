"""FamO2O: plain IQL where its range is a point, its losses in plain numbers, and where it pays to be bold."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from bandits import made, same, some_rows, states, trained
from offline_worlds import make_data, make_transitions, point_mass_transitions
from torch import Tensor
from torch.distributions import Normal

from unio4_lib.errors import InputError
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods import famo2o, iql
from unio4_lib.methods.configs import load_config
from unio4_lib.nets.kinds import encode

RANGE = {"coefficient_min": 1.0, "coefficient_max": 5.0}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def slow_values(learner: Any, observation: Tensor, action: Tensor) -> float:
    inputs = torch.cat([observation, action])[None]
    both = learner.critics.q_target(inputs) * learner.critics.scale + learner.critics.shift
    return float(both.detach().min())


def lag(learner: Any) -> None:
    with torch.no_grad():
        for part in learner.critics.q_target.parameters():
            part.add_(0.1)


def test_a_range_of_one_point_is_iql_to_the_bit_offline_and_online(data: OfflineData) -> None:
    family = made(famo2o.ROOM, data, coefficient_min=2.0, coefficient_max=2.0)
    plain = made(iql.ROOM, data, temperature=2.0)
    wide = made(famo2o.ROOM, data, coefficient_min=1.0, coefficient_max=3.0)
    balance = states(family.policy.balance)
    for step in range(8):
        if step == 4:
            family.go_online()
            plain.go_online()
        batch = data.rows(torch.arange(32) * (step + 3))
        told, said = family.update(batch), plain.update(batch)
        wide.update(batch)
        assert all(torch.equal(told[name], value) for name, value in said.items())
    assert same(states(family.critics, family.policy.net), states(plain.critics, plain.policy.net))
    assert torch.equal(family.policy.raw_std, plain.policy.raw_std)
    rows, noise = batch.observations, torch.randn(32, 1, generator=torch.Generator().manual_seed(2))
    assert torch.equal(family.explore(rows, noise), plain.explore(rows, noise))
    assert torch.equal(family.policy.distribution(rows).mean, plain.policy.distribution(rows).mean)
    assert not same(balance, states(family.policy.balance))
    assert wide.policy.net.layers[0].weight.shape[1] == data.observation_dim + 6


def test_coefficients_are_told_in_waves() -> None:
    assert encode(torch.zeros(2)).tolist() == [[0.0, 1.0] * 3] * 2
    angles = [3.0, 3.0 / 10_000 ** (1 / 3), 3.0 / 10_000 ** (2 / 3)]
    wanted = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
    assert encode(torch.tensor(3.0)).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("online", [False, True])
def test_each_row_is_cloned_by_the_policy_of_its_factor(data: OfflineData, online: bool) -> None:
    """In plain numbers; the factors are those that the same noise gives again."""
    learner, batch = made(famo2o.ROOM, data, largest_weight=3.0, **RANGE), some_rows(data)
    lag(learner)
    if online:
        learner.go_online()
    noise = learner.draws.get_state()
    losses = learner.losses(batch)["policy"]
    learner.draws.set_state(noise)
    factors = learner.coefficients(batch.observations)
    assert not factors.requires_grad
    capped = 0
    for row, factor in enumerate(factors.tolist()):
        seen = torch.cat([batch.observations[row], encode(torch.tensor(factor))])
        mean = torch.tanh(learner.policy.net(seen[None]))[0, 0]
        spread = learner.policy.distribution(batch.observations).log_std[0, row].exp()
        expected = slow_values(learner, batch.observations[row], batch.actions[row])
        advantage = expected - float(learner.critics.values(batch.observations[row]).detach())
        weight = min(math.exp(factor * advantage), 3.0)
        capped += weight == 3.0
        wanted = -weight * float(Normal(mean, spread).log_prob(batch.actions[row]).sum().detach())
        assert losses[row].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert 0 < capped < 6


def test_factors_are_any_of_the_range_offline_and_the_balances_online(data: OfflineData) -> None:
    learner = made(famo2o.ROOM, data, **RANGE)
    rows = data.rows(torch.arange(400)).observations
    with torch.no_grad():
        learner.policy.balance.net.output.bias.fill_(1.0)
        learner.policy.balance.log_std.fill_(-3.0)
    offline = learner.coefficients(rows)
    assert offline.min() < 1.1 and offline.max() > 4.9
    assert float(offline.mean()) == pytest.approx(3.0, abs=0.2)
    learner.go_online()
    online = learner.coefficients(rows)
    hoped = learner.policy.best(rows).detach()
    assert float(online.mean()) == pytest.approx(float(hoped.mean()), abs=0.05)
    assert 0.0 < float(online.std()) < 0.3
    # The policy that is delivered acts by the balance's choice without noise.
    acting = learner.policy.member(rows, hoped[0])
    assert torch.equal(learner.policy.distribution(rows).mean, acting.mean)


def test_the_balance_is_told_what_its_choices_are_worth(data: OfflineData) -> None:
    learner, batch = made(famo2o.ROOM, data, temperature=0.5, **RANGE), some_rows(data)
    lag(learner)
    with torch.no_grad():
        learner.policy.net.output.bias.fill_(1.0)  # so that some actions would leave the box
    noise = learner.draws.get_state()
    losses = learner.balance_losses(batch)
    learner.draws.set_state(noise)
    first, second = learner.normal(6, 1), learner.normal(6, 1)
    found = learner.policy.balance(batch.observations)
    assert float(found.log_std.detach().abs().max()) == 0.0
    for row in range(6):
        place = math.tanh(found.raw_mean[0, row, 0].item() + float(first[row, 0]))
        density = Normal(found.raw_mean[0, row, 0], 1.0).log_prob(torch.tensor(math.atanh(place))).item()
        density -= math.log(1.0 - place**2)
        one = batch.observations[row : row + 1]
        acting = learner.policy.member(one, torch.tensor([1.0 + 2.0 * (place + 1.0)]))
        action = (acting.mean + acting.log_std.exp() * second[row])[0, 0].clamp(-1.0, 1.0)
        worth = slow_values(learner, one[0], action)
        assert losses["balance"][row].item() == pytest.approx(0.5 * density - worth, rel=1e-3)
        assert float(losses["temperature"][row]) == pytest.approx(0.5 * (-density + 0.5), rel=1e-3)


def test_the_balance_moves_alone_and_through_the_family(data: OfflineData) -> None:
    learner, batch = made(famo2o.ROOM, data, **RANGE), some_rows(data)
    balance = list(learner.policy.balance.parameters())
    losses = learner.balance_losses(batch)
    assert all(bool(part.any()) for part in torch.autograd.grad(losses["balance"].sum(), balance))
    family = [part for name, part in learner.policy.named_parameters() if not name.startswith("balance")]
    before = [part.detach().clone() for part in family]
    chosen = states(learner.policy.balance)
    learner.updates.step({"balance": learner.balance_losses(batch)["balance"]})
    assert all(torch.equal(old, new) for old, new in zip(before, family, strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(chosen, balance, strict=True))
    chosen = states(learner.policy.balance)
    learner.updates.step({"policy": learner.losses(batch)["policy"]})
    assert same(chosen, states(learner.policy.balance))
    assert not any(torch.equal(old, new) for old, new in zip(before, family, strict=True))


def test_it_is_bold_where_that_pays_alone() -> None:
    """Of two states one pays by its action, the other not: there the balance has nothing to gain."""
    g = np.random.default_rng(0)
    places, actions = np.sign(g.normal(size=(1000, 1))), g.uniform(-1.0, 1.0, (1000, 1))
    rewards, ends = np.where(places[:, 0] > 0, 0.8 * actions[:, 0], 0.0), np.ones(1000, np.bool_)
    rows = make_data(make_transitions(places, actions, rewards, places, ends, np.zeros_like(ends)))
    fast = {"hidden": (32,), "learning_rate": 5e-3, "polyak": 0.05, "temperature": 0.1}
    policy: Any = trained(famo2o.ROOM, rows, **fast, **RANGE).policy
    here = torch.tensor([[1.0], [-1.0]])
    pays, flat = policy.coefficients(policy.balance(here).mean).flatten().tolist()
    assert pays > flat + 0.4
    careful, middle, bold = (policy.member(here, torch.full((2,), f)).mean[0, 0] for f in (1.0, 3.0, 5.0))
    assert float(careful) + 0.1 < float(middle) < float(bold)


def test_a_range_from_large_to_small_is_one_line() -> None:
    sets = ["famo2o.coefficient_min=4", "famo2o.coefficient_max=2"]
    with pytest.raises(InputError, match=r"famo2o.coefficient_min is 4.0; expected at most") as caught:
        load_config(dataset="minari:x/y-v0", method="famo2o", overrides=sets)
    assert "\n" not in str(caught.value)
