"""SPOT: the density of actions in small cases, TD3 without it, and the better of two things that are done."""

from typing import Any

import numpy as np
import pytest
import torch
from bandits import TRAIN, made, run_of, same, some_rows, states, trained
from offline_worlds import make_data, make_transitions, point_mass_transitions
from torch.distributions import Normal, kl_divergence

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.methods import spot, td3_bc
from unio4_lib.methods.td3 import Td3
from unio4_lib.nets.density import ActionDensity

SMALL: dict[str, Any] = {"density_hidden": (8,), "density_share": 0.0}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def updated(learner: Any, data: OfflineData, steps: range) -> None:
    for step in steps:
        learner.update(data.rows(torch.arange(32) * (step + 3)))


def test_without_weight_it_is_td3_to_the_bit_offline_and_online(data: OfflineData) -> None:
    own = SMALL | {"policy_learning_rate": 3e-4}
    free, held = made(spot.ROOM, data, **own, weight=0.0), made(spot.ROOM, data, **own)
    config: Any = run_of(spot.ROOM)
    plain = Td3(data, config, torch.Generator().manual_seed(0))
    for learner in (free, plain, held):
        updated(learner, data, range(6))
    nets = ("q", "policy", "slow_policy")
    free_nets, plain_nets = ([getattr(learner, name) for name in nets] for learner in (free, plain))
    assert same(states(*free_nets), states(*plain_nets))
    assert not same(states(free.policy), states(held.policy))
    free.go_online()
    config = run_of(spot.ROOM)
    fresh = Td3(data, config, torch.Generator().manual_seed(0))  # its Adam knows nothing either
    for name in nets:
        getattr(fresh, name).load_state_dict(getattr(plain, name).state_dict())
    fresh.draws.set_state(plain.draws.get_state())
    for learner in (free, fresh):
        updated(learner, data, range(4))
    assert same(states(free.q, free.policy), states(fresh.q, fresh.policy))


def test_unlikeliness_in_plain_numbers(data: OfflineData) -> None:
    learner, batch = made(spot.ROOM, data, **SMALL, divergence=0.7), some_rows(data)
    noise = learner.draws.get_state()
    found = learner.unlikeliness(batch.observations, batch.actions)
    learner.draws.set_state(noise)
    draws, density = learner.normal(6, 2), learner.density
    for row in range(6):
        inputs = torch.cat([batch.observations[row], batch.actions[row]])[None]
        mean, log_std = density.encoder(inputs)[0, 0].chunk(2)
        code = mean + log_std.exp() * draws[row]
        action = torch.tanh(density.decoder(torch.cat([batch.observations[row], code])[None]))[0, 0]
        apart = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).mean()
        wanted = (action - batch.actions[row]).square().mean() + 0.7 * apart
        assert found[row].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_policy_pays_for_unlikely_actions_and_the_density_stays(data: OfflineData) -> None:
    learner, batch = made(spot.ROOM, data, **SMALL, weight=0.4), some_rows(data)
    noise = learner.draws.get_state()
    losses = learner.policy_loss(batch)
    learner.draws.set_state(noise)
    actions = learner.policy.distribution(batch.observations).mean[0]
    values = learner.q.values(batch.observations, actions)[0]
    wanted = 0.4 * learner.unlikeliness(batch.observations, actions) - values / values.abs().mean()
    torch.testing.assert_close(losses, wanted)
    density = states(learner.density)
    updated(learner, data, range(4))
    assert same(density, states(learner.density))


def test_at_first_the_density_learns_and_the_policy_waits(data: OfflineData) -> None:
    """A tenth of forty updates, with values that fit the returns, or wait, too."""
    for share in (0.05, 0.0):
        train = TRAIN.model_copy(update={"steps": 40, "monte_carlo_share": share})
        config: Any = run_of(spot.ROOM, density_hidden=(8,)).model_copy(update={"train": train})
        learner = spot.ROOM.make(data, config, torch.Generator().manual_seed(0))
        training = OfflineTraining(learner, data, config.train, seed=1)
        assert isinstance(learner, spot.Spot)
        moved = []
        for _ in range(6):
            nets = (learner.density, learner.q.q, learner.policy)
            before = [states(net) for net in nets]
            training.step()
            moved.append([not same(old, states(net)) for old, net in zip(before, nets, strict=True)])
        first = [True, share > 0, False]
        assert moved[:4] == [first] * 4
        assert [flags[:2] for flags in moved[4:]] == [[False, True]] * 2
        assert any(flags[2] for flags in moved[4:])


def test_values_fit_returns_while_the_density_learns(data: OfflineData) -> None:
    config: Any = run_of(spot.ROOM, density_hidden=(8,))
    fitting = config.train.model_copy(update={"monte_carlo_share": 0.05})
    made_of = config.model_copy(update={"train": fitting})
    learner: Any = spot.ROOM.make(data, made_of, torch.Generator().manual_seed(0))
    batch = some_rows(data)
    errors = learner.q.errors(batch, batch.returns).sum(dim=0).mean()
    assert float(learner.update(batch)["learner/q_loss"]) == pytest.approx(errors.item(), rel=1e-6)


def test_the_weight_falls_online_along_a_line_to_its_share(data: OfflineData) -> None:
    """Over a hundred updates, which its online phase has."""
    learner = made(spot.ROOM, data, **SMALL, weight=0.5, weight_online=0.4)
    updated(learner, data, range(2))
    assert learner.weight() == 0.5
    learner.go_online()
    group = learner.updates.groups["q"]
    assert (group.taken, float(group.means[0].abs().sum())) == (0, 0.0)
    found = []
    for taken in (0, 50, 60, 100):
        group.taken = taken
        found.append(float(learner.weight()))
    assert found == pytest.approx([0.5, 0.25, 0.2, 0.2])


def test_of_two_things_that_were_done_it_does_the_better_one() -> None:
    """Not what lies between, where imitation of rows pulls, nor what would be best beyond them."""
    g = np.random.default_rng(0)
    sides = np.sign(g.normal(size=(600, 1)))
    actions = 0.5 * sides + g.normal(0.0, 0.03, (600, 1))
    nothing, ends = np.zeros((600, 1)), np.ones(600, np.bool_)
    rewards = actions[:, 0]  # more of it promises more
    arms = make_data(make_transitions(nothing, actions, rewards, nothing, ends, np.zeros_like(ends)))
    here, fast = torch.zeros(1, 1), {"hidden": (32,), "learning_rate": 5e-3}
    pulled: Any = trained(td3_bc.ROOM, arms, steps=400, alpha=0.05, **fast)
    assert abs(float(pulled.policy.distribution(here).mean.detach())) < 0.2
    density = {"density_hidden": (32, 32), "density_learning_rate": 5e-3, "density_share": 0.75}
    own = {"policy_learning_rate": 5e-3, "divergence": 0.05, "weight": 20.0}
    learner: Any = trained(spot.ROOM, arms, steps=700, **fast, **density, **own)
    assert float(learner.policy.distribution(here).mean.detach()) == pytest.approx(0.5, abs=0.1)
    codes = torch.zeros(5, 2)
    tried = torch.tensor([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    low, left, middle, right, high = learner.density.losses(here.expand(5, 1), tried, codes, 0.05).tolist()
    assert max(left, right) < 0.5 * min(low, middle, high)


def test_many_codes_come_near_to_the_density_and_one_code_stays_above() -> None:
    """Of one action by one code, whose density is a sum over a fine grid of codes."""
    density, divergence = ActionDensity(1, 1, (8,), torch.Generator().manual_seed(3)).double(), 0.4
    state, action = torch.tensor([[0.3]]).double(), torch.tensor([[0.6]]).double()
    grid = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)
    codes = torch.cartesian_prod(grid, grid)
    found = density.decode(state.expand(len(codes), 1), codes).detach()
    prior = Normal(0.0, 1.0).log_prob(codes).sum(dim=1)
    near = Normal(found[:, 0], (divergence / 4) ** 0.5).log_prob(action[0])
    exact = (prior + near).logsumexp(dim=0) + 2 * torch.log(grid[1] - grid[0])
    constant = Normal(0.0, (divergence / 4) ** 0.5).log_prob(torch.zeros(1)).double()
    wanted = -(divergence / 2) * (exact - constant)
    draws = torch.Generator().manual_seed(0)
    means = {}
    for count, repeats in ((1, 20_000), (5, 4_000), (20_000, 1)):
        noise = torch.randn(count, repeats, 2, generator=draws, dtype=torch.float64)
        means[count] = float(
            density.bound(state.expand(repeats, 1), action.expand(repeats, 1), noise, divergence)
            .mean()
            .detach()
        )
    assert means[20_000] == pytest.approx(float(wanted), rel=0.01)
    assert means[1] > means[5] > means[20_000]
    noise = torch.randn(20_000, 2, generator=draws, dtype=torch.float64)
    rows = state.expand(20_000, 1), action.expand(20_000, 1)
    alone = density.losses(*rows, noise, divergence).mean()
    assert means[1] == pytest.approx(float(alone.detach()), rel=0.02)


def test_the_policy_pays_by_several_codes_where_they_are_asked_for(data: OfflineData) -> None:
    learner, batch = made(spot.ROOM, data, **SMALL, weight=0.4, codes=3), some_rows(data)
    actions = learner.policy.distribution(batch.observations).mean[0]
    noise = learner.draws.get_state()
    penalty = learner.policy_penalty(batch, actions)
    learner.draws.set_state(noise)
    bound = learner.density.bound(batch.observations, actions, learner.normal(3, 6, 2), 0.5)
    torch.testing.assert_close(penalty, 0.4 * bound)
    (slope,) = torch.autograd.grad(penalty.sum(), actions)
    assert (slope != 0).all()
    with pytest.raises(ValueError, match="expected a divergence above 0"):
        made(spot.ROOM, data, **SMALL, divergence=0.0, codes=2)


def test_the_discount_changes_at_the_switch_where_that_is_asked_for(data: OfflineData) -> None:
    for wanted in (None, 0.5):
        learner, batch = (
            made(spot.ROOM, data, **SMALL, discount_online=wanted, target_noise=0.0),
            some_rows(data),
        )
        before = learner.targets(batch) - batch.rewards
        learner.go_online()
        after = learner.targets(batch) - batch.rewards
        torch.testing.assert_close(after, before * (1.0 if wanted is None else 0.5 / 0.9))
