"""PEX: plain IQL offline, a frozen policy and a learning one online, and how it is chosen between both."""

import copy
import math
from typing import Any

import pytest
import torch
from bandits import bandit, made, same, some_rows, states, trained
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor
from torch.distributions import Normal

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods import iql, pex


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def updated(learner: Any, data: OfflineData, steps: range) -> None:
    for step in steps:
        learner.update(data.rows(torch.arange(32) * (step + 3)))


def learned(learner: Any) -> list[Tensor]:
    """Of values and of the policy that learns."""
    return [*states(learner.critics, learner.policy.net), learner.policy.raw_std.detach().clone()]


def online(data: OfflineData, **own: Any) -> Any:
    """A learner in its online phase whose slow values are apart from the quick ones."""
    learner = made(pex.ROOM, data, **own)
    learner.go_online()
    with torch.no_grad():
        for part in learner.critics.q_target.parameters():
            part.add_(0.1)
        # A new policy begins at zero; values that care for actions tell both apart.
        for policy in (learner.policy, learner.policy.old):
            policy.net.output.weight.mul_(50.0)
        learner.critics.q.layers[0].weight.mul_(3.0)
    return learner


def value(learner: Any, net: Any, observation: Tensor, action: Tensor) -> float:
    found = net(torch.cat([observation, action.clamp(-1.0, 1.0)])[None])[:, 0, 0]
    return float((found * learner.critics.scale + learner.critics.shift).min().detach())


def test_offline_it_is_iql_to_the_bit(data: OfflineData) -> None:
    one, plain = made(pex.ROOM, data), made(iql.ROOM, data)
    for learner in (one, plain):
        updated(learner, data, range(6))
    assert same(learned(one), learned(plain))
    rows, noise = data.observations[:50], torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.policy.distribution(rows).mean, plain.policy.distribution(rows).mean)
    assert torch.equal(one.explore(rows, noise), plain.explore(rows, noise))


def test_a_copy_that_clones_the_rows_learns_online_as_iql_to_the_bit(data: OfflineData) -> None:
    """Then only what is done differs: the old policy may still be chosen."""
    neutral = made(pex.ROOM, data, start="offline", cloned="rows")
    plain, usual = made(iql.ROOM, data), made(pex.ROOM, data)
    for learner in (neutral, plain, usual):
        updated(learner, data, range(4))
        learner.go_online()
        updated(learner, data, range(4, 8))
    assert same(learned(neutral), learned(plain))
    assert not same(learned(usual), learned(plain))
    assert same(states(neutral.policy.old), states(usual.policy.old))


def test_online_the_old_policy_stays_and_a_new_one_begins(data: OfflineData) -> None:
    learner = made(pex.ROOM, data)
    updated(learner, data, range(4))
    before = [part.detach().clone() for part in learner.learning()]
    learner.go_online()
    old = states(learner.policy.old)
    assert same(before, old)
    assert not same(before, [part.detach() for part in learner.learning()])
    group = learner.updates.groups["policy"]
    assert (group.taken, float(group.means[0].abs().sum())) == (0, 0.0)
    critics = states(learner.critics.q)
    updated(learner, data, range(2))
    assert same(old, states(learner.policy.old))
    assert not same(critics, states(learner.critics.q))
    assert same(states(learner.policy.values), states(learner.critics.q))


def test_what_is_done_follows_the_softmax_of_both_values(data: OfflineData) -> None:
    learner = online(data, inverse_temperature=100.0)
    row, draws = data.observations[7], 4000
    noise = torch.full((draws, 1), 0.3)
    actions = learner.explore(row.expand(draws, -1), noise)
    old = learner.policy.old.distribution(row[None]).mean[0]
    new = learner.policy.new(row[None]).sample(noise[:1])[0].clamp(-1.0, 1.0)
    taken = (actions - new).abs().amax(dim=1) < 1e-6
    torch.testing.assert_close(actions[~taken], old.expand(int((~taken).sum()), -1))
    worth = [100.0 * value(learner, learner.critics.q, row, action[0]) for action in (old, new)]
    chance = math.exp(worth[1]) / (math.exp(worth[0]) + math.exp(worth[1]))
    assert 0.1 < abs(chance - 0.5) < 0.49
    spread = math.sqrt(chance * (1.0 - chance) / draws)
    assert float(taken.float().mean()) == pytest.approx(chance, abs=4 * spread)
    assert float(learner.new_share) == pytest.approx(chance, abs=1e-5)


def test_the_delivered_policy_takes_the_better_of_both_means(data: OfflineData) -> None:
    learner = online(data)
    rows = data.observations[:40]
    policy = copy.deepcopy(learner.policy)
    found = policy.distribution(rows).mean[0]
    new = 0
    for row, action in zip(rows, found, strict=True):
        means = [one(row[None]).mean[0, 0] for one in (policy.old.distribution, policy.new)]
        worth = [value(learner, learner.critics.q, row, mean) for mean in means]
        assert torch.allclose(action, means[int(worth[1] >= worth[0])])
        new += worth[1] >= worth[0]
    assert 0 < new < 40


def test_the_new_policy_clones_what_is_chosen_by_its_advantage(data: OfflineData) -> None:
    learner, batch = online(data, temperature=2.0, largest_weight=7.0), some_rows(data)
    noise = learner.draws.get_state()
    losses = learner.losses(batch)["policy"]
    learner.draws.set_state(noise)
    actions = learner.choose(batch.observations, learner.normal(6, 1))
    assert not torch.equal(actions, batch.actions)
    found = learner.policy.new(batch.observations)
    capped = 0
    for row in range(6):
        slow = value(learner, learner.critics.q_target, batch.observations[row], actions[row])
        advantage = slow - float(learner.critics.values(batch.observations[row]).detach())
        density = Normal(found.mean[0, row], found.log_std[0, row].exp()).log_prob(actions[row]).sum()
        weight = min(math.exp(2.0 * advantage), 7.0)
        capped += weight == 7.0
        wanted = -weight * float(density.detach())
        assert losses[row].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert 0 < capped < 6
    fixed = [*learner.critics.q.parameters(), *learner.critics.v.parameters()]
    fixed += learner.policy.old.parameters()
    gradients = torch.autograd.grad(losses.sum(), fixed, allow_unused=True)
    assert all(part is None for part in gradients)


def test_with_a_policy_that_knows_nothing_it_does_at_once_what_it_did() -> None:
    """The best action of a bandit, by its values."""
    fast = {"hidden": (32,), "learning_rate": 5e-3, "polyak": 0.05, "temperature": 10.0}
    arms = bandit()
    learner: Any = trained(pex.ROOM, arms, **fast)
    rows = arms.observations[:100]
    before = learner.policy.distribution(rows).mean
    learner.go_online()
    alone, both = learner.policy.new(rows).mean, learner.policy.distribution(rows).mean
    assert float((before - alone).abs().mean().detach()) > 0.3
    torch.testing.assert_close(both, before)
