"""SAC-N, EDAC, CQL, Cal-QL: a known optimum, slow references in plain numbers, each a case of the other."""

import math
from typing import Any

import pytest
import torch
from bandits import BEST, bandit, lag, made, same, some_rows, states, trained
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods import cql, sac_n

A = 2  # action dimensions


@pytest.fixture(scope="module")
def data() -> OfflineData:
    """Rows without a meaning, two actions wide."""
    transitions = point_mass_transitions(episodes=20)
    found = make_data(transitions)
    wide = torch.cat([found.actions, found.actions.roll(7, dims=0)], dim=1)
    box = torch.ones(A)
    return type(found)(**{**vars(found), "actions": wide, "action_low": -box, "action_high": box})


def sac_n_of(data: OfflineData, **own: Any) -> Any:
    return made(sac_n.ROOM, data, **{"critics": 3} | own)


def cql_of(data: OfflineData, **own: Any) -> Any:
    return made(cql.ROOM, data, **{"actions": 3} | own)


def density(learner: Any, observation: Tensor) -> Any:
    """The policy's distribution in one state, as torch has it."""
    with torch.no_grad():
        found = learner.policy.distribution(observation[None])
    normal = Normal(found.raw_mean[0, 0], found.log_std[0, 0].exp())
    return Independent(TransformedDistribution(normal, TanhTransform(cache_size=1)), 1)


def drawn(learner: Any, observation: Tensor, noise: Tensor) -> tuple[Tensor, float]:
    """The action that noise makes in one state, and its log density by torch."""
    with torch.no_grad():
        found = learner.policy.distribution(observation[None])
    raw = found.raw_mean[0, 0] + found.log_std[0, 0].exp() * noise
    spread = density(learner, observation)
    return torch.tanh(raw), float(spread.log_prob(spread.base_dist.transforms[0](raw)))


def q_of(learner: Any, net: Any, observation: Tensor, action: Tensor) -> Tensor:
    """All Q of one row."""
    found: Tensor = net(torch.cat([observation, action])[None])[:, 0, 0]
    return found * learner.q.scale + learner.q.shift


def restart(learner: Any) -> torch.Generator:
    """Its noise from the beginning, and a second generator that draws the same."""
    learner.draws.manual_seed(5)
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize(
    ("room", "own"),
    [
        (sac_n.ROOM, {"critics": 4, "diversity": 0.0}),
        (sac_n.ROOM, {"critics": 4, "diversity": 0.1}),
        (cql.ROOM, {"weight": 0.05, "calibrated": False}),
        (cql.ROOM, {"weight": 0.05, "target_actions": 3}),
    ],
    ids=["SAC-N", "EDAC", "CQL", "Cal-QL"],
)
def test_it_finds_the_best_action_of_a_bandit(room: Any, own: dict[str, Any]) -> None:
    fast = {"hidden": (32,), "learning_rate": 5e-3, "policy_learning_rate": 5e-3, "entropy_per_action": -3.0}
    arms = bandit()
    policy = trained(room, arms, **fast | own).policy
    found = policy.distribution(arms.rows(torch.arange(100)).observations).mean
    assert float((found - BEST).abs().median().detach()) < 0.1


def test_targets_are_the_smallest_slow_value_with_a_bonus_for_entropy(data: OfflineData) -> None:
    learner, batch = sac_n_of(data, temperature=0.3), some_rows(data)
    lag(learner)
    noise = torch.randn(6, A, generator=restart(learner))
    targets = learner.targets(batch)
    for row in range(6):
        there = batch.next_observations[row]
        action, log_prob = drawn(learner, there, noise[row])
        value = float(q_of(learner, learner.q.slow, there, action).min().detach()) - 0.3 * log_prob
        wanted = float(batch.rewards[row]) + 0.9 * (1.0 - float(batch.terminals[row])) * value
        assert float(targets[row]) == pytest.approx(wanted, rel=1e-4)


def test_policy_and_temperature_have_the_losses_of_the_paper(data: OfflineData) -> None:
    learner, batch = sac_n_of(data, temperature=0.3, entropy_per_action=-0.5), some_rows(data)
    noise = torch.randn(6, A, generator=restart(learner))
    with torch.no_grad():
        actions, log_probs = learner.sample(batch.observations)
        losses = learner.policy_loss(batch, actions, log_probs)
    for row in range(6):
        here = batch.observations[row]
        action, log_prob = drawn(learner, here, noise[row])
        value = float(q_of(learner, learner.q.q, here, action).min().detach())
        assert float(log_probs[row]) == pytest.approx(log_prob, rel=1e-4)
        assert float(losses[row]) == pytest.approx(0.3 * log_prob - value, rel=1e-4)
    restart(learner)
    metrics = learner.update(batch)
    wanted = -math.log(0.3) * (float(log_probs.mean()) - 0.5 * A)
    assert float(metrics["learner/temperature_loss"]) == pytest.approx(wanted, rel=1e-4)
    assert float(metrics["learner/entropy"]) == pytest.approx(-float(log_probs.mean()), rel=1e-4)


def test_the_temperature_falls_where_entropy_is_more_than_wanted(data: OfflineData) -> None:
    for wanted, direction in ((-50.0, -1.0), (50.0, 1.0)):
        learner = sac_n_of(data, entropy_per_action=wanted)
        learner.update(some_rows(data))
        assert math.copysign(1.0, float(learner.temperature.value()) - 1.0) == direction


def cosine_sum(learner: Any, batch: Batch, row: int) -> float:
    """Of all ordered pairs of critics, by the number of other ones."""
    directions = []
    for member in range(3):
        action = batch.actions[row].clone().requires_grad_(True)
        value = q_of(learner, learner.q.q, batch.observations[row], action)[member]
        directions.append(torch.autograd.grad(value, action)[0])
    pairs = [
        float(torch.nn.functional.cosine_similarity(directions[i], directions[j], dim=0))
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    return sum(pairs) / 2


def test_edac_adds_the_cosines_between_gradients_by_the_action(data: OfflineData) -> None:
    learner, plain = sac_n_of(data, diversity=2.0), sac_n_of(data, diversity=0.0)
    batch = some_rows(data)
    found = learner.alignment(batch)
    assert found.tolist() == pytest.approx([cosine_sum(learner, batch, row) for row in range(6)], abs=1e-4)
    losses = []
    for one in (learner, plain):
        restart(one)
        losses.append(one.q_loss(batch))
    torch.testing.assert_close(losses[0] - losses[1], 2.0 * found / learner.q.scale.square())


def test_the_gradient_of_edac_goes_through_the_gradient(data: OfflineData) -> None:
    """Central differences, in double precision."""
    learner = sac_n_of(data)
    learner.q.double()
    batch = Batch(*(part.double() for part in some_rows(data)))
    weight = learner.q.q.layers[0].weight
    (found,) = torch.autograd.grad(learner.alignment(batch).mean(), weight)
    place = tuple(int(i) for i in (found.abs() == found.abs().max()).nonzero()[0])
    step = 1e-7
    ends = []
    for move in (step, -2 * step):
        with torch.no_grad():
            weight[place] += move
        ends.append(float(learner.alignment(batch).mean().detach()))
    assert float(found[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_edac_without_diversity_is_sac_n_and_two_critics_of_it_are_sac(data: OfflineData) -> None:
    """CQL without a penalty is SAC, too; all three take the same steps."""
    plain = {"critics": 2, "entropy_backup": True, "policy_learning_rate": 1e-3}
    learners = [
        made(sac_n.ROOM, data, diversity=0.0, **plain),
        made(cql.ROOM, data, weight=0.0, **plain),
        made(sac_n.ROOM, data, diversity=1.0, **plain),
    ]
    for step in range(5):
        batch = data.rows(torch.arange(32) * (step + 3))
        for learner in learners:
            learner.update(batch)
    one, two, other = (states(learner.q, learner.policy, learner.temperature) for learner in learners)
    assert same(one, two)
    assert not same(one, other)


def gap_of(learner: Any, batch: Batch, row: int, others: Tensor, later: Tensor, now: Tensor) -> list[float]:
    """Of each Q in one row; arguments are random actions and noise [B, K, A]."""
    here, count = batch.observations[row], others.shape[1]
    terms: list[list[float]] = [[] for _ in range(2)]
    for k in range(count):
        drawn_here = [
            (others[row, k], -A * math.log(2.0), False),
            (*drawn(learner, batch.next_observations[row], later[row, k]), True),
            (*drawn(learner, here, now[row, k]), True),
        ]
        for action, log_density, own in drawn_here:
            values = q_of(learner, learner.q.q, here, action)
            for member in range(2):
                value = float(values[member].detach())
                if own and learner.calibrated:
                    value = max(value, float(batch.returns[row]))
                terms[member].append(value - log_density)
    data_values = q_of(learner, learner.q.q, here, batch.actions[row])
    promised = [math.log(sum(math.exp(term) for term in one)) for one in terms]
    return [promised[member] - float(data_values[member].detach()) for member in range(2)]


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_gap_is_the_papers_row_by_row(data: OfflineData, calibrated: bool) -> None:
    learner, batch = cql_of(data, calibrated=calibrated), some_rows(data)
    batch = batch._replace(returns=torch.tensor([-9.0, -9.0, 5.0, 5.0, 9.0, 9.0]))
    generator = restart(learner)
    others = 2.0 * torch.rand(6, 3, A, generator=generator) - 1.0
    now, later = (torch.randn(18, A, generator=generator).view(6, 3, A) for _ in range(2))
    found = learner.gap(batch)
    for row in range(6):
        wanted = gap_of(learner, batch, row, others, later, now)
        assert found[:, row].tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_the_gap_counts_by_its_weight_and_not_below_its_bound(data: OfflineData) -> None:
    batch, none = some_rows(data), torch.zeros(6)
    losses = []
    for weight in (0.0, 3.0):
        learner = cql_of(data, weight=weight, calibrated=False)
        restart(learner)
        losses.append(learner.q_loss(batch))
    restart(learner)
    learner.targets(batch)
    gap = learner.gap(batch).sum(dim=0) / learner.q.scale.square()
    torch.testing.assert_close(losses[1] - losses[0], 3.0 * gap)
    bounded = cql_of(data, smallest_gap=-1e-9)
    with torch.no_grad():
        bounded.q.shift.fill_(0.0)
        bounded.q.values = lambda observations, actions: (  # type: ignore[method-assign]
            torch.full((2, len(actions)), 50.0 if len(actions) == 6 else 0.0)
        )
    assert torch.equal(bounded.gap(batch._replace(returns=none)), torch.full((2, 6), -1e-9))


def test_cal_ql_without_known_returns_or_switched_off_is_cql(data: OfflineData) -> None:
    batch = some_rows(data)
    unknown = batch._replace(returns=torch.full((6,), -torch.inf))
    high = batch._replace(returns=torch.full((6,), 100.0))
    found = {}
    for name, calibrated, rows in (("cal", True, unknown), ("cql", False, high), ("high", True, high)):
        learner = cql_of(data, calibrated=calibrated)
        for _ in range(3):
            learner.update(rows)
        found[name] = states(learner.q, learner.policy)
    assert same(found["cal"], found["cql"])
    assert not same(found["cal"], found["high"])


def test_online_the_floor_is_gone_and_the_weight_another(data: OfflineData) -> None:
    learner = cql_of(data, weight=5.0, weight_online=0.5)
    assert (learner.weight, learner.calibrated) == (5.0, True)
    learner.go_online()
    assert (learner.weight, learner.calibrated) == (0.5, False)


def test_the_best_of_several_next_actions_is_the_target(data: OfflineData) -> None:
    learner, batch = cql_of(data, target_actions=4, entropy_backup=True, temperature=0.3), some_rows(data)
    lag(learner)
    noise = torch.randn(24, A, generator=restart(learner)).view(6, 4, A)
    found = learner.following(batch).detach()
    for row in range(6):
        there = batch.next_observations[row]
        options = [drawn(learner, there, noise[row, k]) for k in range(4)]
        values = [float(q_of(learner, learner.q.slow, there, action).min().detach()) for action, _ in options]
        best = max(range(4), key=values.__getitem__)
        assert float(found[row]) == pytest.approx(values[best] - 0.3 * options[best][1], rel=1e-4)
