"""Methods on another base: each without what it adds is that base to the bit, and keeps all of it."""

import copy
from typing import Any

import pytest
import torch
from bandits import TRAIN, same, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass
from test_cfdg import TINY

from unio4_lib.learning.evaluation import evaluate
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.methods import apl, cfdg_apl, cfdg_pex, cql, edis_cql, opt_spot, pex, spot, td3, td3_bc
from unio4_lib.methods.offpolicy import OffPolicy
from unio4_lib.nets.policy import Policy
from unio4_lib.settings.offpolicy import OffPolicyTuneConfig

TUNE = OffPolicyTuneConfig(env_steps=160, num_envs=4, warmup_steps=80, round_steps=40, evaluate_every=80)
BOLD: dict[str, Any] = {"actions": 2, "recent_chance": 0.5, "recent_rows": 80}
DENSITY: dict[str, Any] = {"density_hidden": (8,), "density_share": 0.02}
NO_SECOND = {"preparation": 0.0, "kappa_start": 0.0, "kappa_end": 0.0, "ratio_power": 0.0}
ENERGIES = {"energy_updates": 3, "energy_rows": 8, "energy_hidden": (8,)}
PAIRS: dict[str, tuple[OffPolicy, dict[str, Any], OffPolicy, dict[str, Any]]] = {
    "opt_spot": (opt_spot.ROOM, DENSITY | NO_SECOND, spot.ROOM, DENSITY),
    "cfdg_pex": (cfdg_pex.ROOM, TINY | {"made_share": 0.0}, pex.ROOM, {}),
    "cfdg_apl": (cfdg_apl.ROOM, TINY | BOLD | {"made_share": 0.0}, apl.ROOM, BOLD),
    "edis_cql": (
        edis_cql.ROOM,
        TINY | ENERGIES | {"made_share": 0.0, "actions": 2},
        cql.ROOM,
        {"actions": 2},
    ),
}
MORE: dict[str, dict[str, Any]] = {  # what makes a difference
    "opt_spot": {"preparation": 0.5, "kappa_start": 0.5, "kappa_end": 0.5},
    "cfdg_pex": {"made_share": 0.3},
    "cfdg_apl": {"made_share": 0.3},
    "edis_cql": {"made_share": 0.3},
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def made(room: OffPolicy, data: OfflineData, **own: Any) -> Any:
    """A new learner that knows of this online phase."""
    sections = {"train": TRAIN.model_dump(), "finetune": TUNE.model_dump(), room.name: {"hidden": (8,)} | own}
    config = room.settings.model_validate({"dataset": "none", **sections})
    return room.make(data, config, torch.Generator().manual_seed(0))


def measure(policy: Policy, *, sampled: bool = False) -> Any:
    return evaluate(policy.act, PointMass, 2, seed=5)


def online(data: OfflineData, learner: Any, seed: int = 3) -> OnlineTraining:
    return OnlineTraining(learner, data, TUNE, PointMass, batch_size=24, seed=seed)


def values_of(learner: Any) -> Any:
    """Q and what else its base learned, whoever holds it."""
    base = getattr(learner, "base", learner)
    return base.critics if hasattr(base, "critics") else base.q


@pytest.mark.parametrize("name", PAIRS)
def test_without_what_it_adds_it_is_its_base_bit_for_bit(name: str, data: OfflineData) -> None:
    room, neutral, base, given = PAIRS[name]
    learners = [
        made(room, data, **neutral),
        made(base, data, **given),
        made(room, data, **neutral | MORE[name]),
    ]
    for learner in learners:
        for step in range(12):
            learner.update(data.rows(torch.arange(16) * (step + 3)))
    found = [states(values_of(learner), learner.policy) for learner in learners]
    assert same(found[0], found[1]) and same(found[0], found[2])  # offline there is nothing to add
    for learner in learners:
        list(online(data, learner).run(measure))
    found = [states(values_of(learner), learner.policy) for learner in learners]
    assert same(found[0], found[1]) and not same(found[0], found[2])


@pytest.mark.parametrize("name", PAIRS)
def test_it_goes_on_with_the_same_bits(name: str, data: OfflineData) -> None:
    """From every entry of the log, the one within the preparation or a refresh included."""
    room, neutral, _, _ = PAIRS[name]

    def new() -> Any:
        return made(room, data, **neutral | MORE[name])

    learner = new()
    for step in range(12):  # what it brings from there, another one does not know
        learner.update(data.rows(torch.arange(16) * (step + 3)))
    whole, kept = online(data, learner), list[Any]()
    list(whole.run(measure, lambda *_: kept.append(copy.deepcopy(whole.state_dict()))))
    assert len(kept) > 20
    for state in (kept[10], kept[-2]):
        rest = online(data, new(), seed=77)
        rest.load_state_dict(state)
        list(rest.run(measure))
        pair = [states(values_of(one.learner), one.policy) for one in (whole, rest)]
        assert same(*pair)


def test_the_density_stays_as_it_is_online(data: OfflineData) -> None:
    """Also where Adam forgets, and with it how often the density has learned."""
    learner = made(opt_spot.ROOM, data, **DENSITY)
    for step in range(12):
        learner.update(data.rows(torch.arange(16) * (step + 3)))
    density, policy = states(learner.density), states(learner.policy)
    learner.go_online()
    learner.kappa = 0.5
    for step in range(4):
        learner.update(data.rows(torch.arange(16) * (step + 3)))
    assert same(density, states(learner.density)) and not same(policy, states(learner.policy))


def test_made_rows_are_recent_as_those_that_they_are_like(data: OfflineData) -> None:
    learner = made(cfdg_apl.ROOM, data, **TINY | BOLD)
    training, seen, plain = online(data, learner), list[Batch](), learner.update

    def update(batch: Any) -> Any:
        seen.append(Batch(*(part.clone() for part in batch)))  # the next one comes in the same memory
        return plain(batch)

    learner.update = update
    list(training.run(measure))
    rows = training.replay.made
    assert rows is not None and rows.recent.tolist() == [1.0] * 80 + [0.0] * 20
    kinds = {batch.recent.mean().item() for batch in seen}
    assert kinds == {0.0, 1.0}
    old_like = set(rows.rewards[80:].tolist())
    for batch in seen:
        made_ones = set(batch.rewards[-8:].tolist())
        assert (made_ones <= old_like) == (batch.recent[0].item() == 0.0)


def test_plain_td3_is_td3_bc_without_imitation(data: OfflineData) -> None:
    learners = [made(td3.ROOM, data), made(td3_bc.ROOM, data, alpha=1.0, imitation_online=0.0)]
    for learner in learners:
        list(online(data, learner).run(measure))
    assert same(*(states(learner.q, learner.policy) for learner in learners))
