"""OPT: the gradient through a step, the mix of two critics, weights of rows, and TD3+BC without them."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from bandits import lag, made, same, some_rows, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass
from torch import Tensor

from unio4_lib.learning.density_ratio import DensityRatio, weights_of_rows
from unio4_lib.learning.evaluation import evaluate
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.learning.replay import Fresh, Replay
from unio4_lib.methods import opt, td3_bc
from unio4_lib.methods.opt import OptTuneConfig
from unio4_lib.nets.policy import Policy

NEUTRAL: dict[str, Any] = {
    "preparation": 0.0,
    "kappa_start": 0.0,
    "kappa_end": 0.0,
    "ratio_power": 0.0,
    "fresh_adam": False,
    "imitation_online": 0.5,
}
TUNE = OptTuneConfig(env_steps=200, num_envs=4, warmup_steps=80, round_steps=40, evaluate_every=100)


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def opt_of(data: OfflineData, **own: Any) -> Any:
    """A learner whose settings count from the warm-up and the budget of ``TUNE``."""
    room, config = (
        opt.ROOM,
        opt.OptRun(
            dataset="none",
            train={"discount": 0.9, "batch_size": 16},
            finetune=TUNE,
            opt={"hidden": (8,), "ratio_updates": 5} | own,
        ),
    )
    return room.make(data, config, torch.Generator().manual_seed(0))


def measure(policy: Policy, *, sampled: bool = False) -> Any:
    return evaluate(policy.act, PointMass, 2, seed=5)


def online(data: OfflineData, learner: Any, seed: int = 3) -> OnlineTraining:
    return OnlineTraining(learner, data, TUNE, PointMass, batch_size=16, seed=seed)


def pair(data: OfflineData) -> tuple[Batch, Batch]:
    new = data.rows(torch.arange(6) * 11 + 3)
    return some_rows(data), new._replace(rewards=new.rewards + 1.0, actions=-new.actions)


def test_the_gradient_of_the_preparation_goes_through_the_step(data: OfflineData) -> None:
    """Central differences in double precision, of the loss without what only scales it."""
    learner = opt_of(data, inner_rate=0.5, target_noise=0.0, layer_norm=False)
    learner.second.double(), learner.slow_policy.double()
    old, new = (Batch(*(part.double() for part in rows)) for rows in pair(data))
    targets = [learner.second_targets(rows) for rows in (old, new)]
    weights = dict(learner.second.q.named_parameters())

    def value(share: float) -> Tensor:
        first = learner.td(weights, old, targets[0]).mean()
        slope = torch.autograd.grad(first, list(weights.values()))
        moved = {
            name: part.detach() - 0.5 * step
            for (name, part), step in zip(weights.items(), slope, strict=True)
        }
        return first.detach() + share * learner.td(moved, new, targets[1]).mean().detach()

    loss = learner.meta_loss(old, new)
    first = learner.td(weights, old, targets[0]).mean()
    share = float((loss.detach() - first.detach()) / (value(1.0) - first.detach()))
    found = torch.autograd.grad(loss, list(weights.values()))
    for gradient, part in zip(found, weights.values(), strict=True):
        place = tuple(int(i) for i in (gradient.abs() == gradient.abs().max()).nonzero()[0])
        ends = []
        for move in (1e-5, -2e-5):
            with torch.no_grad():
                part[place] += move
            ends.append(float(value(share)))
        with torch.no_grad():
            part[place] += 1e-5
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("better", [-1.0, 1.0])
def test_new_rows_count_at_most_like_old_ones(data: OfflineData, better: float) -> None:
    """Without a step in between it is a plain sum, the second part no larger than the first."""
    learner = opt_of(data, inner_rate=0.0, target_noise=0.0)
    old, new = pair(data)
    old = old._replace(rewards=old.rewards + (50.0 if better > 0 else 0.0))
    new = new._replace(rewards=new.rewards + (50.0 if better < 0 else 0.0))
    parts = [
        learner.second.errors(rows, learner.second_targets(rows)).sum(dim=0).mean() for rows in (old, new)
    ]
    assert (parts[0] > parts[1]) == (better > 0)
    torch.testing.assert_close(learner.meta_loss(old, new), parts[0] + torch.minimum(*parts))


def test_the_second_critic_has_targets_of_its_own(data: OfflineData) -> None:
    learner, batch = opt_of(data, target_noise=0.0), some_rows(data)
    with torch.no_grad():
        for part in learner.second.slow.parameters():
            part.add_(0.1)
    lag(learner)
    targets = learner.second_targets(batch)
    for row in range(6):
        there = batch.next_observations[row : row + 1]
        action = learner.slow_policy.distribution(there).mean[0]
        both = learner.second.slow(torch.cat([there, action], dim=1))[:, 0, 0]
        value = float((both * learner.second.scale + learner.second.shift).min().detach())
        wanted = float(batch.rewards[row]) + 0.9 * (1.0 - float(batch.terminals[row])) * value
        assert float(targets[row]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("careful", [False, True])
def test_the_policy_follows_both_critics_by_their_shares(data: OfflineData, careful: bool) -> None:
    learner, batch = opt_of(data, careful_policy=careful), some_rows(data)
    learner.go_online()
    for kappa in (0.0, 0.3, 1.0):
        learner.mixture.kappa.fill_(kappa)
        values = [q.values(batch.observations, batch.actions) for q in (learner.q, learner.second)]
        first, second = (both.min(dim=0).values if careful else both[0] for both in values)
        found = learner.followed_values(batch.observations, batch.actions)
        torch.testing.assert_close(found, (1 - kappa) * first + kappa * second)
    slopes = torch.autograd.grad(found.sum(), list(learner.q.q.parameters()))
    assert all(not slope.any() for slope in slopes)


def test_without_its_parts_it_is_td3_bc_bit_for_bit(data: OfflineData) -> None:
    """Offline and online, rows, acting and all."""
    learners = [opt_of(data, **NEUTRAL), made(td3_bc.ROOM, data, imitation_online=0.5)]
    for learner in learners:
        for step in range(4):
            learner.update(data.rows(torch.arange(16) * (step + 3)))
    for learner in learners:
        list(online(data, learner).run(measure))
    one, two = (states(learner.q, learner.policy, learner.slow_policy) for learner in learners)
    assert same(one, two)


def test_the_preparation_comes_after_the_warm_up_and_before_any_update(data: OfflineData) -> None:
    learner = opt_of(data, preparation=0.5)
    told: list[tuple[str, int]] = []
    for name in ("update", "meta_loss", "weigh"):
        plain = getattr(learner, name)

        def heard(*rows: Any, name: str = name, plain: Any = plain) -> Any:
            told.append((name, training.env_steps))
            return plain(*rows)

        setattr(learner, name, heard)
    training = online(data, learner)
    list(training.run(measure))
    kinds = [name for name, _ in told]
    assert kinds[:42] == ["meta_loss"] * 40 + ["weigh", "update"]
    assert [steps for name, steps in told if name == "meta_loss"] == [80] * 40
    assert (kinds.count("update"), kinds.count("weigh"), training.env_steps) == (120, 1, 200)
    assert float(learner.mixture.kappa) == pytest.approx(0.9)


def test_kappa_rises_with_steps_in_the_environment(data: OfflineData) -> None:
    learner = opt_of(data, preparation=0.0, ratio_power=0.0, kappa_rise=0.5)
    replay = Replay(data, 10, "union")
    replay.added = 4
    found = []
    for env_steps in (80, 110, 140, 200):
        learner.prepare(replay, env_steps)
        found.append(float(learner.mixture.kappa))
    assert found == pytest.approx([0.1, 0.5, 0.9, 0.9])


def test_it_goes_on_within_the_preparation(data: OfflineData) -> None:
    whole, kept = online(data, opt_of(data)), []
    list(whole.run(measure, lambda steps, _: kept.append((steps, copy.deepcopy(whole.state_dict())))))
    steps, state = kept[4]
    assert steps == 80 and 0 < state["learner"]["prepared"] < 160
    rest = online(data, opt_of(data), seed=77)
    rest.load_state_dict(state)
    list(rest.run(measure))
    parts = [
        (one.learner.q, one.learner.second, one.learner.policy, one.learner.ratio) for one in (whole, rest)
    ]
    assert same(states(*parts[0]), states(*parts[1]))


def test_a_prepared_critic_fits_new_rows_after_one_step(data: OfflineData) -> None:
    old, new = pair(data)

    def later_loss(learner: Any) -> float:
        with torch.enable_grad():
            learner.settings = learner.settings.model_copy(update={"inner_rate": 0.02})
            weights = dict(learner.second.q.named_parameters())
            loss = learner.td(weights, old, learner.second_targets(old)).mean()
            slope = torch.autograd.grad(loss, list(weights.values()))
        moved = {name: part - 0.02 * step for (name, part), step in zip(weights.items(), slope, strict=True)}
        return float(learner.td(moved, new, learner.second_targets(new)).mean().detach())

    prepared, untouched = (opt_of(data, inner_rate=0.02, learning_rate=3e-3) for _ in range(2))
    for _ in range(200):
        prepared.own_updates.step({"second": prepared.meta_loss(old, new)})
    assert later_loss(prepared) < 0.5 * later_loss(untouched)


def test_the_log_ratio_of_two_gaussians_is_known() -> None:
    g = torch.Generator().manual_seed(0)
    ratio = DensityRatio(1, 1, (32,), generator=g)
    adam = torch.optim.Adam(ratio.parameters(), 1e-2)

    def rows(mean: float) -> Batch:
        drawn = torch.randn(512, 2, generator=g) + mean
        return Batch(drawn[:, :1], drawn[:, 1:], *(torch.zeros(0),) * 7)

    for _ in range(300):
        adam.zero_grad()
        ratio.losses(rows(-0.5), rows(0.5)).mean().backward()
        adam.step()
    seen = rows(0.0)
    truth = seen.observations[:, 0] + seen.actions[:, 0]  # of N(0.5, 1) over N(-0.5, 1), twice
    found = ratio.of_all(seen.observations, seen.actions)
    assert float(torch.corrcoef(torch.stack([found, truth]))[0, 1]) > 0.95
    assert 0.7 < float((found * truth).sum() / truth.square().sum()) < 1.3


def test_weights_are_ratios_to_a_power_in_units_of_the_old_rows() -> None:
    old, new = np.array([0.5, 1.0, 2.0, 4.5]), np.array([8.0, 2.0])
    logs = [torch.from_numpy(ratios).log().float() for ratios in (old, new)]
    found = weights_of_rows(*logs, 0.2)
    for weights, ratios in zip(found, (old, new), strict=True):
        assert weights.tolist() == pytest.approx(list((ratios / 2.0) ** 0.2), rel=1e-5)
    assert torch.equal(weights_of_rows(*logs, 0.0)[1], torch.ones(2))


def test_rows_that_look_new_are_drawn_more_often(data: OfflineData) -> None:
    learner = opt_of(data, ratio_power=1.0, ratio_updates=60, learning_rate=1e-2)
    replay = Replay(data, 40, "union")
    here = data.rows(torch.arange(40))
    away = Fresh(here.observations + 3.0, here.actions, *here[2:5], torch.zeros(40))
    replay.add(away)
    learner.weigh(replay)
    assert replay.weights is not None
    old, new = replay.weights
    assert float(new.min()) > float(old.mean())
    assert replay.new_share() > 40 / (40 + len(data))
