"""TD3, TD3+BC and ReBRAC: a known optimum, exact small cases, and each as a case of the other."""

from typing import Any

import pytest
import torch
from bandits import BEST, bandit, lag, made, run_of, same, some_rows, states, trained
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods import rebrac, td3_bc
from unio4_lib.methods.td3 import Td3

FREE: dict[str, dict[str, Any]] = {
    "td3_bc": {"alpha": 1e6},
    "rebrac": {"policy_imitation": 0.0, "value_imitation": 0.0},
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


@pytest.mark.parametrize("room", [td3_bc.ROOM, rebrac.ROOM], ids=lambda room: room.name)
def test_it_finds_the_best_action_of_a_bandit_and_less_where_it_is_held_back(room: Any) -> None:
    fast = {"hidden": (32,), "learning_rate": 5e-3}
    own = {"td3_bc": {"alpha": 0.05}, "rebrac": {"policy_imitation": 20.0}}
    arms = bandit()
    rows = arms.rows(torch.arange(100)).observations
    free = trained(room, arms, **fast | FREE[room.name]).policy.distribution(rows).mean
    held = trained(room, arms, **fast | own[room.name]).policy.distribution(rows).mean
    assert float((free - BEST).abs().median().detach()) < 0.05
    assert float(held.abs().median().detach()) < 0.15  # near the mean of uniform actions


def test_rebrac_without_weights_is_td3_with_the_smaller_q(data: OfflineData) -> None:
    class Careful(Td3):
        def policy_value(self, values: Tensor) -> Tensor:
            return values.min(dim=0).values

    free = made(rebrac.ROOM, data, **FREE["rebrac"])
    config: Any = run_of(rebrac.ROOM)
    plain = Careful(data, config, torch.Generator().manual_seed(0))
    held = made(rebrac.ROOM, data, policy_imitation=0.1, value_imitation=0.1)
    for step in range(6):
        batch = data.rows(torch.arange(32) * (step + 3))
        for learner in (free, plain, held):
            learner.update(batch)
    assert same(states(free.q, free.policy), states(plain.q, plain.policy))
    assert not same(states(free.policy), states(held.policy))


def test_rebrac_takes_distances_off_values_and_adds_them_to_the_policys_loss(data: OfflineData) -> None:
    """Row by row, in plain numbers; the last row is the end of an episode and knows no next action."""
    learner = made(rebrac.ROOM, data, policy_imitation=0.3, value_imitation=0.7, target_noise=0.0)
    lag(learner)
    batch = some_rows(data)
    batch = batch._replace(followed=torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    targets, losses = learner.targets(batch), learner.policy_loss(batch)
    sizes, expected = [], []
    for row in range(6):
        here, there = batch.observations[row], batch.next_observations[row]
        hoped = learner.slow_policy.distribution(there[None]).mean[0, 0]
        slow = learner.q.slow(torch.cat([there, hoped])[None])[:, 0, 0] * learner.q.scale + learner.q.shift
        off = float((hoped - batch.next_actions[row]).square().sum()) * float(batch.followed[row])
        following = float(slow.min()) - 0.7 * off
        wanted = float(batch.rewards[row]) + 0.9 * (1.0 - float(batch.terminals[row])) * following
        assert float(targets[row]) == pytest.approx(wanted, rel=1e-4)
        action = learner.policy.distribution(here[None]).mean[0, 0]
        both = learner.q.q(torch.cat([here, action])[None])[:, 0, 0] * learner.q.scale + learner.q.shift
        both = both.detach()
        sizes.append(abs(float(both.min())))
        action = action.detach()
        expected.append((0.3 * float((action - batch.actions[row]).square().sum()), float(both.min())))
    size = sum(sizes) / 6
    for loss, (distance, value) in zip(losses.tolist(), expected, strict=True):
        assert loss == pytest.approx(distance - value / size, rel=1e-4)


def test_rebrac_lets_go_along_a_line_online_and_remembers_where_it_was(data: OfflineData) -> None:
    """Over a hundred updates, which its online phase has."""
    learner = made(rebrac.ROOM, data, imitation_online=0.2)
    group = learner.updates.groups["q"]
    group.taken = 1000
    assert learner.imitation() == 1.0
    learner.go_online()
    shares = []
    for taken in (1000, 1050, 1100, 5000):
        group.taken = taken
        shares.append(float(learner.imitation()))
    assert shares == pytest.approx([1.0, 0.6, 0.2, 0.2])
    group.taken = 1050
    other = made(rebrac.ROOM, data, imitation_online=0.2)
    other.go_online()
    other.load_state_dict(learner.state_dict())
    assert float(other.imitation()) == pytest.approx(0.6)


def test_the_policy_moves_along_the_gradient_of_its_loss_alone(data: OfflineData) -> None:
    """Central differences, in double precision; Q stays where it was."""
    learner = made(td3_bc.ROOM, data, alpha=2.0)
    for module in (learner.q, learner.policy):
        module.double()
    batch = some_rows(data)
    batch = type(batch)(*(part.double() for part in batch))
    # The size of Q is a number to the gradient, so it is taken out of the loss that is compared.
    values = learner.q.values(batch.observations, learner.policy.distribution(batch.observations).mean[0])
    size = float(values[0].detach().abs().mean())

    def loss() -> float:
        actions = learner.policy.distribution(batch.observations).mean[0]
        first = learner.q.values(batch.observations, actions)[0]
        return float(((actions - batch.actions).square().mean(dim=1) - 2.0 * first / size).mean())

    weight = learner.policy.net.output.weight
    (found,) = torch.autograd.grad(learner.policy_loss(batch).mean(), weight)
    for place in ((0, 0, 0), (0, 5, 0)):
        with torch.no_grad():
            weight[place] += 1e-6
            above = loss()
            weight[place] -= 2e-6
            below = loss()
            weight[place] += 1e-6
        assert float(found[place]) == pytest.approx((above - below) / 2e-6, rel=1e-5)
