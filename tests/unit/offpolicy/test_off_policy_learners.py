"""Off-policy learners: losses against slow references, where gradients go, a task with a known optimum."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import make_data, point_mass_transitions, true_returns
from point_mass import EPISODE_STEPS, PointMass
from torch import Tensor

from unio4_lib.learning.evaluation import EpisodeStats, evaluate
from unio4_lib.learning.learner import Learner
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining, OnlineTraining
from unio4_lib.learning.replay import Fresh
from unio4_lib.methods import cql, e2o, famo2o, iql, opt, pex, rebrac, sac_n, spot, td3_bc
from unio4_lib.methods.iql import Iql, IqlConfig, IqlRun
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3_bc import Td3Bc, Td3BcConfig, Td3BcRun
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig, OffPolicyTuneConfig

BASES = (iql.ROOM, td3_bc.ROOM, rebrac.ROOM, sac_n.ROOM, cql.ROOM)
# Those that add learning of their own; the others are variants, and have tests that know them better.
ROOMS = (*BASES, famo2o.ROOM, pex.ROOM, spot.ROOM, e2o.ROOM, opt.ROOM)
SMALL: dict[str, Any] = {"hidden": (32,), "learning_rate": 3e-3, "polyak": 0.05}
TRAIN = OffPolicyTrainConfig(steps=600, batch_size=64, discount=0.9, monte_carlo_share=0.0)
TUNE = OffPolicyTuneConfig(
    env_steps=800, num_envs=4, warmup_steps=80, round_steps=100, evaluate_every=400, evaluate_episodes=8
)
SAC = SMALL | {"policy_learning_rate": 3e-3, "temperature": 0.1}
OWN: dict[str, dict[str, Any]] = {
    "iql": SMALL,
    "td3_bc": SMALL | {"imitation_online": 0.1},
    "rebrac": SMALL | {"imitation_online": 0.1},
    "sac_n": SAC | {"critics": 3, "diversity": 0.0},
    "famo2o": SMALL,
    "pex": SMALL,
    "spot": SMALL | {"policy_learning_rate": 3e-3, "density_hidden": (32,), "density_learning_rate": 3e-3},
    "cql": SAC | {"weight": 0.1, "weight_online": 0.0},
    "opt": SMALL | {"imitation_online": 0.1, "preparation": 1.0, "ratio_every": 200, "ratio_updates": 20},
    "e2o": SAC | {"critics": 3, "weight": 0.1, "backup_temperature": 1.0, "optimism": 0.1},
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=40))


def run_of(room: OffPolicy, **own: Any) -> OffPolicyRun:
    sections = {"train": TRAIN.model_dump(), "finetune": TUNE.model_dump(), room.name: OWN[room.name] | own}
    return room.settings.model_validate({"dataset": "none", **sections})


def made(room: OffPolicy, data: OfflineData, **own: Any) -> Learner:
    return room.make(data, run_of(room, **own), torch.Generator().manual_seed(0))


def trained(room: OffPolicy, data: OfflineData, steps: int = TRAIN.steps, **own: Any) -> OfflineTraining:
    training = OfflineTraining(made(room, data, **own), data, TRAIN, seed=1)
    for _ in range(steps):
        training.step()
    return training


def state_of(learner: Learner) -> dict[str, Tensor]:
    return copy.deepcopy(learner.policy.state_dict())


def measure(policy: GaussianPolicy, *, sampled: bool = False) -> EpisodeStats:
    return evaluate(policy.act, PointMass, 8, seed=5)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_it_beats_its_data_offline_and_itself_online(room: OffPolicy, data: OfflineData) -> None:
    """The behavior drives to the wrong place; the best policy stays at the origin, for 1 a step."""
    training = trained(room, data)
    behavior = float(data.episode_returns()[0].mean()) / 25
    learner = training.learner
    offline = float(true_returns(learner.policy, steps=20).mean()) / 20
    assert offline > behavior + 0.05
    online = OnlineTraining(learner, data, TUNE, PointMass, batch_size=64, seed=2)
    points = list(online.run(measure))
    assert [point.env_steps for point in points] == [0, 400, 800]
    returns = [point.stats.mean for point in points]
    most = evaluate(lambda rows: np.clip(-4.0 * rows, -1.0, 1.0), PointMass, 8, seed=5).mean
    assert max(returns[1:]) > returns[0] + 0.05 or returns[0] > most - 0.1
    best = int(np.argmax(returns))
    assert online.delivered_at == points[best].env_steps
    assert measure(online.delivered).mean == pytest.approx(returns[best])


@pytest.mark.parametrize("room", BASES, ids=lambda room: room.name)
def test_offline_training_goes_on_with_the_same_bits(room: OffPolicy, data: OfflineData) -> None:
    one = trained(room, data, steps=7)
    other = OfflineTraining(made(room, data), data, TRAIN, seed=99)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for training in (one, other):
        for _ in range(5):
            training.step()
    pairs = zip(state_of(one.learner).values(), state_of(other.learner).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("room", BASES, ids=lambda room: room.name)
def test_online_training_goes_on_with_the_same_bits(room: OffPolicy, data: OfflineData) -> None:
    """Stopped in the middle; replay, simulator and generators are those of the other one."""
    tune = TUNE.model_copy(update={"env_steps": 480, "round_steps": 60, "evaluate_every": 240})

    def online(seed: int) -> OnlineTraining:
        return OnlineTraining(made(room, data), data, tune, PointMass, batch_size=16, seed=seed)

    whole, kept = online(3), []
    whole_points = []
    for point in whole.run(measure, lambda steps, _: kept.append((steps, copy.deepcopy(whole.state_dict())))):
        whole_points.append(point)
    state = next(state for steps, state in kept if steps >= 180)
    rest = online(77)
    rest.load_state_dict(state)
    assert [point.env_steps for point in rest.run(measure)] == [240, 480]
    pairs = zip(state_of(whole.learner).values(), state_of(rest.learner).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert rest.delivered_at == whole.delivered_at


def test_values_fit_the_returns_of_the_data_at_first(data: OfflineData) -> None:
    """A tenth of the updates; where it is taken up again it knows how many are left."""
    config = TRAIN.model_copy(update={"monte_carlo_share": 0.1, "steps": 50})
    learner = made(iql.ROOM, data)
    seen: list[Batch] = []
    learner.update = lambda batch: seen.append(batch) or {}  # type: ignore[method-assign,func-returns-value]
    training = OfflineTraining(learner, data, config, seed=1)
    for _ in range(3):
        training.step()
    other = OfflineTraining(learner, data, config, seed=2)
    other.load_state_dict(training.state_dict())
    for _ in range(4):
        other.step()
    whole = [torch.equal(batch.rewards, batch.returns) and bool(batch.terminals.all()) for batch in seen]
    assert whole == [True] * 5 + [False] * 2
    assert not seen[-1].terminals.any()


def test_steps_and_updates_are_counted(data: OfflineData) -> None:
    """None while it only collects, then as many as are asked for, also with less than one a step."""
    learner = made(iql.ROOM, data)
    updates: list[int] = []
    original = learner.update
    learner.update = lambda batch: updates.append(len(batch.rewards)) or original(batch)  # type: ignore[method-assign,func-returns-value]
    config = TUNE.model_copy(update={"updates_per_step": 0.3, "env_steps": 400, "evaluate_every": 400})
    online = OnlineTraining(learner, data, config, PointMass, batch_size=16, seed=0)
    list(online.run(measure))
    assert online.replay.fresh == online.env_steps == 400
    assert len(updates) == int((400 - 80) * 0.3)


def test_what_only_some_updates_say_is_averaged_over_those(data: OfflineData) -> None:
    learner, turn = made(iql.ROOM, data), iter(range(10_000))

    def update(batch: Batch) -> dict[str, Tensor]:
        number = torch.tensor(float(next(turn)))
        return {"always": number} | ({"sometimes": number} if number % 2 else {})

    learner.update = update  # type: ignore[method-assign]
    online = OnlineTraining(learner, data, TUNE, PointMass, batch_size=16, seed=0)
    metrics = online._round(84)  # four updates, 0 to 3
    assert (float(metrics["always"]), float(metrics["sometimes"])) == (1.5, 2.0)


def test_new_rows_are_in_the_units_of_the_data(data: OfflineData) -> None:
    online = OnlineTraining(made(iql.ROOM, data), data, TUNE, PointMass, batch_size=16, seed=0)
    for _ in range(EPISODE_STEPS + 1):  # across the ends of all episodes, which only time has ended
        online._collect()
    rows = Fresh(*(part[: online.env_steps] for part in online.replay.ring))
    sim = online.collector.sim
    assert isinstance(sim, PointMass)
    assert not rows.terminals.any()
    assert rows.ended.view(-1, 4).sum(dim=0).min() == 1
    torch.testing.assert_close(rows.actions, torch.from_numpy(np.concatenate(sim.seen_actions)).float())
    moved = rows.observations + 0.25 * rows.actions
    torch.testing.assert_close(rows.next_observations, moved)
    torch.testing.assert_close(rows.rewards, 1.0 - moved[:, 0] ** 2)


def first_rows(data: OfflineData, rows: int = 6) -> Batch:
    return data.rows(torch.arange(rows) * 7)


def test_iql_clones_each_row_by_its_advantage(data: OfflineData) -> None:
    learner = Iql(
        data,
        IqlRun(dataset="none", iql=IqlConfig(hidden=(8,), temperature=2.0, largest_weight=1.5)),
        torch.Generator().manual_seed(0),
    )
    batch = first_rows(data)
    losses = learner.losses(batch)["policy"]
    gaussian = learner.policy.distribution(batch.observations)
    capped = 0
    for row in range(6):
        one = slice(row, row + 1)
        slow = learner.critics._q(learner.critics.q_target, batch.observations[one], batch.actions[one])
        advantage = (slow.min() - learner.critics.values(batch.observations[one])).item()
        weight = min(np.exp(2.0 * advantage), 1.5)
        capped += weight == 1.5
        spread = torch.distributions.Normal(gaussian.mean[0, row], gaussian.log_std[0, row].exp())
        expected = -weight * spread.log_prob(batch.actions[row]).sum()
        torch.testing.assert_close(losses[row], expected.float(), atol=1e-5, rtol=1e-5)
    assert 0 < capped < 6
    losses.sum().backward()
    assert all(part.grad is None for part in learner.critics.parameters())


def test_iql_slows_its_policy_down_offline_only(data: OfflineData) -> None:
    learner = made(iql.ROOM, data)
    assert isinstance(learner, Iql)
    groups = learner.updates.groups
    assert (groups["value"].share, groups["q"].share) == (None, None)
    rates = []
    for taken in (0, TRAIN.steps // 2, TRAIN.steps):
        groups["policy"].taken = taken
        rates.append(float(groups["policy"].rate()))
    assert rates == pytest.approx([3e-3, 1.5e-3, 3e-3])


def td3(data: OfflineData, **own: Any) -> Td3Bc:
    settings = Td3BcConfig(**{"hidden": (8,), "target_noise": 0.0, **own})
    learner = Td3Bc(
        data, Td3BcRun(dataset="none", train=TRAIN, td3_bc=settings), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        for part in (*learner.q.slow.parameters(), *learner.slow_policy.parameters()):
            part.add_(0.1)  # the slow copies lag behind
    return learner


def test_td3_takes_the_smaller_slow_value_behind_a_row_that_does_not_end(data: OfflineData) -> None:
    learner, batch = td3(data), first_rows(data)
    batch = batch._replace(terminals=torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    targets = learner.targets(batch)
    for row in range(6):
        following = batch.next_observations[row : row + 1]
        action = learner.slow_policy.distribution(following).mean[0]
        inputs = torch.cat([following, action], dim=1)
        both = learner.q.slow(inputs)[:, 0, 0] * learner.q.scale + learner.q.shift
        alive = 1.0 - float(batch.terminals[row])
        expected = float(batch.rewards[row]) + 0.9 * alive * float(both.min())
        assert float(targets[row]) == pytest.approx(expected, rel=1e-5)


def test_td3_noise_on_targets_is_bounded_and_its_own(data: OfflineData) -> None:
    learner, batch = td3(data, target_noise=5.0, noise_bound=0.3), first_rows(data)
    seen: list[Tensor] = []
    original = learner.q.slow_values
    learner.q.slow_values = lambda o, a: seen.append(a) or original(o, a)  # type: ignore[method-assign,func-returns-value]
    learner.targets(batch)
    learner.targets(batch)
    plain = learner.slow_policy.distribution(batch.next_observations).mean[0]
    assert not torch.equal(*seen)
    assert all(float((actions - plain).abs().max()) <= 0.3 + 1e-6 for actions in seen)


def test_td3_policy_weighs_q_by_its_size_against_the_data(data: OfflineData) -> None:
    learner, batch = td3(data, alpha=2.0), first_rows(data)
    loss = learner.policy_loss(batch)
    actions = learner.policy.distribution(batch.observations).mean[0]
    values = learner.q.values(batch.observations, actions)[0]
    distance = (actions - batch.actions).square().mean(dim=1)
    torch.testing.assert_close(loss, distance - 2.0 * values / values.abs().mean())


def test_td3_moves_its_policy_and_slow_copies_every_second_time(data: OfflineData) -> None:
    learner, batch = td3(data), first_rows(data)
    before = state_of(learner)
    slow = copy.deepcopy(learner.q.slow.state_dict())
    learner.update(batch)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state_of(learner).values(), strict=True))
    learner.update(batch)
    changed = [not torch.equal(slow[name], part) for name, part in learner.q.slow.state_dict().items()]
    assert all(changed)


def test_less_imitation_online(data: OfflineData) -> None:
    learner, batch = td3(data, imitation_online=0.0, alpha=1.0), first_rows(data)
    learner.go_online()
    elsewhere = batch._replace(actions=-batch.actions)
    torch.testing.assert_close(learner.policy_loss(batch), learner.policy_loss(elsewhere))
