"""CFDG: what its minibatches are made of, that its rows obey the world, and IQL without them."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from bandits import made, same, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass

from unio4_lib.learning.evaluation import evaluate
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.methods import cfdg, iql
from unio4_lib.nets.policy import Policy
from unio4_lib.settings.offpolicy import BalancedTuneConfig

TUNE = BalancedTuneConfig(env_steps=240, num_envs=4, warmup_steps=80, round_steps=40, evaluate_every=120)
TINY: dict[str, Any] = {
    **{"denoiser_width": 16, "denoiser_depth": 1, "denoiser_updates": 60, "sampling_steps": 4},
    **{"made_rows": 100, "rows_at_once": 32, "refresh_every": 100},
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def cfdg_of(data: OfflineData, **own: Any) -> Any:
    return made(cfdg.ROOM, data, **TINY | own)


def online(data: OfflineData, learner: Any, seed: int = 3) -> OnlineTraining:
    return OnlineTraining(learner, data, TUNE, PointMass, batch_size=24, seed=seed)


def measure(policy: Policy, *, sampled: bool = False) -> Any:
    return evaluate(policy.act, PointMass, 2, seed=5)


def test_without_made_rows_it_is_iql_bit_for_bit(data: OfflineData) -> None:
    learners = [cfdg_of(data, made_share=0.0), made(iql.ROOM, data)]
    for learner in learners:
        for step in range(4):
            learner.update(data.rows(torch.arange(16) * (step + 3)))
        list(online(data, learner).run(measure))
    one, two = (states(learner.critics, learner.policy) for learner in (learners[0].base, learners[1]))
    assert same(one, two)


def test_minibatches_are_a_third_each_of_old_new_and_made_rows(data: OfflineData) -> None:
    learner = cfdg_of(data)
    training = online(data, learner)
    made_when: list[tuple[int, int]] = []
    pools: list[list[float]] = []
    put, counts, plain = training.replay.put_made, Counter[str](), learner.update

    def heard(rows: Batch, share: float) -> None:
        made_when.append((training.env_steps, len(rows.rewards)))
        pools.append(rows.rewards.tolist())
        put(rows, share)

    def update(batch: Batch) -> Any:
        made_rows = training.replay.made
        assert made_rows is not None
        for returns, following in zip(
            batch.returns.tolist(), batch.next_observations[:, 0].tolist(), strict=True
        ):
            new = any(following == seen for seen in training.replay.ring.next_observations[:, 0].tolist())
            counts["old" if returns > -torch.inf else "new" if new else "made"] += 1
        return plain(batch)

    training.replay.put_made, learner.update = heard, update  # type: ignore[method-assign]
    list(training.run(measure))
    assert made_when == [(80, 100), (180, 100)]
    assert not set(pools[0]) & set(pools[1])
    assert counts == {"old": 8 * 160, "new": 8 * 160, "made": 8 * 160}


def test_rows_are_made_some_at_a_time_most_of_them_like_new_ones(data: OfflineData) -> None:
    learner = cfdg_of(data)
    training, seen = online(data, learner), []
    plain = learner.slow_denoiser.towards

    def towards(labels: Any) -> Any:
        seen.append(labels)
        return plain(labels)

    learner.slow_denoiser.towards = towards
    training._round(80)
    while training.replay.made is None:
        training._round(120)
    known, unknown = seen[::2], seen[1::2]
    assert [len(labels) for labels in known] == [32, 32, 32, 4]
    assert Counter(torch.cat(known).tolist()) == {cfdg.NEW: 80, cfdg.OLD: 20}
    assert set(torch.cat(unknown).tolist()) == {2}
    assert training.env_steps == 80


def test_the_denoiser_sees_classes_as_they_are_and_sometimes_none(data: OfflineData) -> None:
    learner = cfdg_of(data, denoiser_batch=400, forget_class=0.25)
    training = online(data, learner)
    training._round(80)
    vectors, labels = learner.labelled(training.replay)
    new = training.replay.fresh_rows(torch.arange(80))
    known = {tuple(row) for row in learner.vectors.pack(new).tolist()}
    is_new = torch.tensor([tuple(row) in known for row in vectors.tolist()])
    assert torch.equal(is_new, torch.arange(400) >= 200)
    assert set(labels[:200].tolist()) == {cfdg.OLD, 2} and set(labels[200:].tolist()) == {cfdg.NEW, 2}
    assert 60 < int((labels == 2).sum()) < 140


@pytest.mark.parametrize("entry", [4, 60])
def test_it_goes_on_within_a_refresh(data: OfflineData, entry: int) -> None:
    """In the training of the denoiser, and between rows that it makes."""
    own = {"denoiser_updates": 50} if entry > 50 else {}
    whole, kept = online(data, cfdg_of(data, **own)), []
    list(whole.run(measure, lambda _, said: kept.append((said, copy.deepcopy(whole.state_dict())))))
    begun = next(i for i, (said, _) in enumerate(kept) if "learner/denoiser_loss" in said)
    state = kept[begun + (entry if entry < 50 else 51)][1]
    assert state["env_steps"] == 80
    assert (len(state["learner"]["pending"]) > 0) == (entry > 50)
    rest = online(data, cfdg_of(data, **own), seed=77)
    rest.load_state_dict(state)
    list(rest.run(measure))
    nets = [(one.learner.base.critics, one.learner.policy, one.learner.denoiser) for one in (whole, rest)]
    assert same(states(*nets[0]), states(*nets[1]))
    assert whole.replay.made is not None and rest.replay.made is not None
    assert torch.equal(whole.replay.made.rewards, rest.replay.made.rewards)


def test_made_rows_obey_the_world(data: OfflineData) -> None:
    """Errors of successor and reward against the true ones, and those of shuffled rows."""
    own = {"denoiser_width": 32, "denoiser_depth": 2, "denoiser_updates": 400, "denoiser_rate": 1e-2}
    learner = cfdg_of(data, **own, denoiser_polyak=0.02, made_rows=500, rows_at_once=500, sampling_steps=16)
    training = online(data, learner)
    training._round(80)
    while training.replay.made is None:
        training._round(120)
    rows, other = training.replay.made, torch.randperm(500, generator=torch.Generator().manual_seed(0))
    for found, truth in (
        (rows.next_observations, rows.observations + 0.25 * rows.actions),
        (rows.rewards, 1.0 - rows.next_observations[:, 0].square()),
    ):
        error, shuffled = ((found[place] - truth).abs().mean() for place in (torch.arange(500), other))
        assert float(error) < 0.3 * float(shuffled)
