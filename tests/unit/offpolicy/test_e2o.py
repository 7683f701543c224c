"""E2O: order statistics against pairs, rows by agreement, upper bounds, and what it is without them."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from bandits import lag, made, same, some_rows, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass
from test_sac_family import drawn, q_of, restart
from torch import Tensor

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.methods import cql, e2o, sac_n
from unio4_lib.methods.e2o import E2oTuneConfig, agreement, mean_of_pairs

NEUTRAL: dict[str, Any] = {"backup_temperature": 0.0, "optimistic": False}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


@pytest.fixture(scope="module")
def wide(data: OfflineData) -> OfflineData:
    """Two actions: gradients by a single one have no direction to be driven apart in."""
    actions, box = torch.cat([data.actions, data.actions.roll(7, dims=0)], dim=1), torch.ones(2)
    return type(data)(**{**vars(data), "actions": actions, "action_low": -box, "action_high": box})


def e2o_of(data: OfflineData, **own: Any) -> Any:
    return made(e2o.ROOM, data, **{"critics": 4, "actions": 2} | own)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_order_statistics_are_the_mean_over_pairs(count: int) -> None:
    values = torch.randn(count, 7, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    pairs = [torch.minimum(values[i], values[j]) for i, j in combinations(range(count), 2)]
    found = mean_of_pairs(values)
    torch.testing.assert_close(found, torch.stack(pairs).mean(dim=0), rtol=0, atol=1e-12)
    assert bool((values.amin(dim=0) <= found).all() and (found <= values.mean(dim=0)).all())
    if count == 2:
        assert torch.equal(found, values.amin(dim=0))


def test_rows_count_less_the_more_critics_disagree() -> None:
    spread = torch.tensor([0.0, 0.1, 0.3, 5.0])
    weights = agreement(torch.stack([-spread, spread]) + 3.0, 10.0)
    wanted = [1.0 / (1.0 + math.exp(10.0 * std)) + 0.5 for std in spread.tolist()]
    assert weights.tolist() == pytest.approx(wanted, abs=1e-5)
    assert weights[0] == 1.0 and weights[-1] == 0.5
    assert torch.equal(agreement(torch.randn(5, 6), 0.0), torch.ones(6))


@pytest.mark.parametrize("target", ["pairs", "min"])
def test_the_loss_online_is_the_papers_row_by_row(data: OfflineData, target: str) -> None:
    own = {"target": target, "temperature": 0.3, "backup_temperature": 2.0}
    learner, batch = e2o_of(data, **own), some_rows(data)
    learner.go_online()
    lag(learner)
    noise = torch.randn(6, 1, 1, generator=restart(learner))[:, 0]
    losses = learner.q_loss(batch).detach()
    for row in range(6):
        action, log_prob = drawn(learner, batch.next_observations[row], noise[row])
        slow = q_of(learner, learner.q.slow, batch.next_observations[row], action).tolist()
        pairs = [min(a, b) for a, b in combinations(slow, 2)]
        value = (sum(pairs) / len(pairs) if target == "pairs" else min(slow)) - 0.3 * log_prob
        wanted = float(batch.rewards[row]) + 0.9 * (1.0 - float(batch.terminals[row])) * value
        weight = 1.0 / (1.0 + math.exp(2.0 * float(np.std(slow)))) + 0.5
        found = q_of(learner, learner.q.q, batch.observations[row], batch.actions[row]).detach()
        errors = ((found - wanted) / learner.q.scale).square()
        assert float(losses[row]) == pytest.approx(weight * float(errors.sum()), rel=1e-3)


def test_targets_and_weights_move_nothing(data: OfflineData) -> None:
    learner = e2o_of(data)
    learner.go_online()
    others = [*learner.policy.parameters(), learner.temperature.log]
    found = torch.autograd.grad(learner.q_loss(some_rows(data)).sum(), others, allow_unused=True)
    assert found == (None,) * len(others)


def run_both(data: OfflineData, left: Any, right: Any, online: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Networks of two learners after the same rows and explorations, offline and maybe online."""
    for phase in range(1 + online):
        for step in range(3):
            batch = data.rows(torch.arange(32) * (step + 3))
            for learner in (left, right):
                learner.update(batch)
                learner.explore(batch.observations, torch.ones_like(batch.actions))
        if online and phase == 0:
            left.go_online(), right.go_online()
    noise = torch.full((6, data.action_dim), 0.5)
    tried = [learner.explore(data.observations[:6], noise) for learner in (left, right)]
    assert torch.equal(*tried)
    parts = [states(learner.q, learner.policy, learner.temperature) for learner in (left, right)]
    return parts[0], parts[1]


@pytest.mark.parametrize("target", ["pairs", "min"])
def test_two_critics_and_no_hope_are_cql_bit_for_bit(data: OfflineData, target: str) -> None:
    base = made(cql.ROOM, data, actions=2, weight_online=0.0, calibrated=False, entropy_backup=True)
    rates = {"critics": 2, "policy_learning_rate": 1e-4}
    assert same(*run_both(data, e2o_of(data, target=target, **rates, **NEUTRAL), base, online=True))


def test_the_cheap_variant_is_edac_bit_for_bit_and_sac_n_online(wide: OfflineData) -> None:
    own = {"critics": 4, "policy_learning_rate": 3e-4}
    left, right = e2o_of(wide, offline="edac", target="min", **own, **NEUTRAL), made(sac_n.ROOM, wide, **own)
    assert same(*run_both(wide, left, right, online=False))
    plain = made(sac_n.ROOM, wide, **own | {"diversity": 0.0})
    plain.load_state_dict(right.state_dict())
    left.go_online()
    batch = wide.rows(torch.arange(32) * 5)
    for learner in (left, plain):
        learner.update(batch)
    assert same(states(left.q, left.policy), states(plain.q, plain.policy))


def test_it_acts_by_the_highest_upper_bound(data: OfflineData) -> None:
    learner = e2o_of(data, optimism=3.0, candidates=5)
    here = data.observations[:6]
    noise = torch.randn(6, 5, 1, generator=restart(learner))
    found = learner.explore(here, torch.zeros(6, 1))
    for row in range(6):
        options = [drawn(learner, here[row], noise[row, k])[0] for k in range(5)]
        values = [q_of(learner, learner.q.q, here[row], action).detach().numpy() for action in options]
        best = int(np.argmax([value.mean() + 3.0 * value.std() for value in values]))
        torch.testing.assert_close(found[row], options[best])


def test_critics_that_agree_leave_the_choice_to_their_mean(data: OfflineData) -> None:
    learner = e2o_of(data)
    with torch.no_grad():
        for part in learner.q.q.parameters():
            part.copy_(part[:1].expand_as(part))
    actions = torch.rand(6, 3, 1) * 2.0 - 1.0
    bound = learner.upper_bound(data.observations[:6], actions)
    for k in range(3):
        mean = learner.q.values(data.observations[:6], actions[:, k]).mean(dim=0)
        torch.testing.assert_close(bound[:, k], mean, atol=1e-5, rtol=1e-5)


def test_online_it_learns_from_new_rows_alone_and_without_the_gap(data: OfflineData) -> None:
    learner = e2o_of(data, weight=5.0)
    config = E2oTuneConfig(env_steps=40, num_envs=4, warmup_steps=8)
    online = OnlineTraining(learner, data, config, PointMass, batch_size=16, seed=0)
    seen: list[Tensor] = []
    learner.update = lambda batch: seen.append(batch.returns) or {}
    online._round(24)
    assert len(seen) == 16 and all(bool(returns.isneginf().all()) for returns in seen)
    assert (learner.weight, learner.settings.diversity, learner.online) == (0.0, 0.0, True)
