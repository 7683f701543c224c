"""FamO2O on CQL: plain CQL where its range is a point, losses in plain numbers, whose actions are meant."""

from typing import Any

import pytest
import torch
from bandits import made, same, some_rows, states
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor

from unio4_lib.errors import InputError
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods import cql, famo2o_cql
from unio4_lib.methods.configs import load_config

PLAIN: dict[str, Any] = {
    "calibrated": False,
    "weight": 1.0,
    "weight_online": 0.3,
    "layer_norm": True,
    "policy_learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def learned(learner: Any) -> list[Tensor]:
    return states(learner.q, learner.policy.net, learner.temperature)


def family(data: OfflineData, **own: Any) -> Any:
    """A learner whose balance cares for states."""
    learner = made(famo2o_cql.ROOM, data, actions=3, **own)
    with torch.no_grad():
        learner.policy.balance.net.output.weight.mul_(200.0)
        learner.policy.balance.log_std.fill_(-1.0)
        learner.policy.net.output.weight.mul_(30.0)
        for part in learner.q.slow.parameters():
            part.add_(0.1)
    return learner


def test_a_range_of_one_point_is_cql_to_the_bit_offline_and_online(data: OfflineData) -> None:
    point = {"coefficient_min": 1.0, "coefficient_max": 1.0}
    one = made(famo2o_cql.ROOM, data, **point, policy_learning_rate=1e-3, weight_online=0.3)
    plain, wide = made(cql.ROOM, data, **PLAIN), made(famo2o_cql.ROOM, data)
    balance = states(one.policy.balance)
    for step in range(6):
        if step == 3:
            one.go_online()
            plain.go_online()
        batch = data.rows(torch.arange(32) * (step + 3))
        for learner in (one, plain, wide):
            learner.update(batch)
    assert same(learned(one), learned(plain))
    assert same(balance, states(one.policy.balance))  # there is nothing to choose
    rows, noise = batch.observations, torch.randn(32, 1, generator=torch.Generator().manual_seed(2))
    assert torch.equal(one.explore(rows, noise), plain.explore(rows, noise))
    assert wide.policy.net.layers[0].weight.shape[1] == data.observation_dim + 6


@pytest.mark.parametrize("online", [False, True])
def test_each_member_weighs_values_by_its_factor(data: OfflineData, online: bool) -> None:
    learner, batch = family(data, temperature=0.5), some_rows(data)
    if online:
        learner.go_online()
    kept = learner.draws.get_state(), learner.choices.get_state()
    losses, said = learner.losses(batch)
    learner.draws.set_state(kept[0])
    learner.choices.set_state(kept[1])
    factors, noise = learner.factors(batch.observations), learner.normal(6, 1, 1)
    assert float(factors.min()) >= 0.5 and float(factors.max()) <= 1.5
    for row, factor in enumerate(factors):
        here = batch.observations[row : row + 1]
        found = learner.policy.member(here, factor[None])
        action, density = found.sample_with_log_prob(noise[row])
        worth = learner.q.values(here, action[0]).min()
        wanted = 0.5 * float(density.detach()) - float(factor) * float(worth.detach())
        assert losses["policy"][row].item() == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert said[row].item() == pytest.approx(density.item(), rel=1e-3, abs=1e-4)


def test_the_balance_learns_by_values_alone_and_alone(data: OfflineData) -> None:
    learner, batch = family(data), some_rows(data)
    kept = learner.choices.get_state()
    losses = learner.balance_loss(batch.observations)
    learner.choices.set_state(kept)
    first, second = learner.noise(6, 1), learner.noise(6, 1)
    found = learner.policy.balance(batch.observations)
    for row in range(6):
        place = torch.tanh(found.raw_mean[0, row, 0] + found.log_std[0, row, 0].exp() * first[row, 0])
        here = batch.observations[row : row + 1]
        action = learner.policy.member(here, (1.0 + 0.5 * place)[None]).sample(second[row])[0]
        worth = learner.q.values(here, action).min()
        assert losses[row].item() == pytest.approx(-worth.item(), rel=1e-4, abs=1e-5)
    chosen, others = states(learner.policy.balance), learned(learner)
    learner.updates.step({"balance": learner.balance_loss(batch.observations)})
    assert same(others, learned(learner))
    assert not same(chosen, states(learner.policy.balance))
    chosen = states(learner.policy.balance)
    learner.updates.step({"policy": learner.losses(batch)[0]["policy"]})
    assert same(chosen, states(learner.policy.balance))


def test_targets_hope_for_the_balances_choice_and_all_members_are_held_down(data: OfflineData) -> None:
    learner, batch = family(data), some_rows(data)
    asked: list[tuple[Tensor, Tensor]] = []
    original = learner.policy.member
    learner.policy.member = lambda o, c: asked.append((o, c)) or original(o, c)
    with torch.no_grad():
        learner.policy.balance.net.output.weight.zero_()
        learner.policy.balance.net.output.bias.fill_(2.0)
        learner.policy.balance.log_std.fill_(-9.0)
    best = 1.0 + 0.5 * torch.tanh(torch.tensor(2.0))
    learner.q_loss(batch)
    (target, now, later) = asked
    for rows, factors in (target, later):
        assert torch.equal(rows, batch.next_observations)
        torch.testing.assert_close(factors, best.expand(6), atol=1e-3, rtol=0)
    assert torch.equal(now[0], batch.observations)
    assert float(now[1].std()) > 0.1
    asked.clear()
    learner.go_online()
    learner.q_loss(batch)
    torch.testing.assert_close(asked[1][1], best.expand(6), atol=1e-3, rtol=0)


def test_it_remembers_what_it_draws_choices_from(data: OfflineData) -> None:
    one, other = family(data), family(data)
    rows, noise = data.observations[:20], torch.zeros(20, 1)
    one.explore(rows, noise)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.explore(rows, noise), other.explore(rows, noise))
    assert not torch.equal(one.explore(rows, noise), one.explore(rows, noise))


def test_a_range_from_large_to_small_is_one_line() -> None:
    sets = ["famo2o_cql.coefficient_min=4"]
    with pytest.raises(InputError, match=r"famo2o_cql.coefficient_min is 4.0; expected at most famo2o_cql"):
        load_config(dataset="minari:x/y-v0", method="famo2o_cql", overrides=sets)
