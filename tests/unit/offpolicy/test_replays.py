"""Recorded steps do what plain ones do, to the bit, for whoever learns; what cannot be recorded is seen."""

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from bandits import some_rows
from offline_worlds import make_data, point_mass_transitions
from tape import NotRecordableError, StandIn
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import CriticTrainer
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import BatchUpdates, OfflineTraining
from unio4_lib.learning.replays import Replays, Steady, also_when_replayed, fastest
from unio4_lib.methods.offpolicy import OffPolicy
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.settings.model import BehaviorConfig, CriticsConfig, DynamicsConfig
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig

LEARNERS = [name for name in METHODS if find_method(name).pipeline == "offpolicy"]
STEPS = 24
FITTING = OffPolicyTrainConfig(steps=100, batch_size=8, discount=0.9, monte_carlo_share=0.08)
GENERATING = ("cfdg", "cfdg_apl", "cfdg_pex", "edis", "edis_cql")
OWN: dict[str, dict[str, Any]] = {
    "sac_n": {"critics": 3},
    "e2o": {"critics": 3},
    "spot": {"density_hidden": (8,), "density_share": 0.02, "weight_online": 0.0},
    "opt_spot": {"density_hidden": (8,), "density_share": 0.02},
    **{name: {"denoiser_width": 8, "denoiser_depth": 1} for name in GENERATING},
    "baq": {"relaxed_after": 0.1, "imitation_online": 0.5},
}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def made(name: str, data: OfflineData) -> Any:
    """A new learner of small networks, whose work online is over soon."""
    room: OffPolicy = import_module(METHODS[name].partition(":")[0]).ROOM
    own = {"hidden": (8,)} | OWN.get(name, {})
    tune = {"env_steps": 100, "warmup_steps": 1}
    sections = {"train": FITTING.model_dump(), "finetune": tune, name: own}
    config = room.settings.model_validate({"dataset": "none", **sections})
    return room.make(data, config, torch.Generator().manual_seed(0))


def flat(state: Any) -> list[Any]:
    """All that a state has, in its order."""
    if isinstance(state, dict):
        return [part for value in state.values() for part in flat(value)]
    if isinstance(state, list | tuple):
        return [part for value in state for part in flat(value)]
    return [state]


def same_state(left: Any, right: Any) -> bool:
    pairs = zip(flat(left.state_dict()), flat(right.state_dict()), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def follow(plain: Any, taped: Any, replays: Replays, steps: int = STEPS) -> None:
    """Both take steps and stay the same."""
    recorder = replays.recorder
    assert isinstance(recorder, StandIn)
    for step in range(steps):
        expected, said = plain.step(), replays.step()
        assert expected.keys() == said.keys(), step
        assert all(torch.equal(expected[name], said[name]) for name in said), (step, expected, said)
    assert same_state(plain, taped)
    assert recorder.replayed >= steps // 4


@pytest.mark.parametrize("name", LEARNERS)
def test_offline_updates_are_replayed_to_the_bit(name: str, data: OfflineData) -> None:
    """On the way it stops fitting returns, and a learner goes through phases of its own."""
    plain, taped = (OfflineTraining(made(name, data), data, FITTING, seed=1) for _ in range(2))
    replays = Replays(taped, StandIn())
    follow(plain, taped, replays)
    assert len(replays.recorded) >= 2


class Online:
    """Updates on one minibatch after the other, as they come online."""

    def __init__(self, learner: Any, data: OfflineData) -> None:
        self.learner, self.data, self.at = learner, data, 0
        self.updates = BatchUpdates(learner)

    def step(self) -> dict[str, Tensor]:
        self.at += 1
        rows = some_rows(self.data)
        return self.updates.update(rows._replace(rewards=rows.rewards + 0.1 * self.at))

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()


@pytest.mark.parametrize("name", LEARNERS)
def test_online_updates_are_replayed_to_the_bit(name: str, data: OfflineData) -> None:
    """What fades online fades in replays, too, and the last of it is gone on the way."""
    plain, taped = (Online(made(name, data), data) for _ in range(2))
    for one in (plain, taped):
        for _ in range(3):
            one.learner.update(some_rows(data))
        one.learner.go_online()
    replays = Replays(taped.updates, StandIn())
    taped.updates._step = replays.step
    recorder = replays.recorder
    assert isinstance(recorder, StandIn)
    for step in range(STEPS):
        if step == 20 and name in ("spot", "rebrac"):  # near the end of what fades
            for one in (plain, taped):
                one.learner.updates.groups["q"].taken = int(one.learner.fall) - 2
        expected, said = plain.step(), taped.step()
        assert all(torch.equal(expected[key], said[key]) for key in expected | said), step
    assert same_state(plain, taped)
    assert recorder.replayed >= STEPS // 4


def critics(data: OfflineData, kind: Any) -> CriticTrainer:
    config = CriticsConfig(
        kind=kind, q_hidden=(8,), v_hidden=(8,), steps=60, monte_carlo_steps=8, refresh_every=10,
        target_every=2, batch_size=16,
    )  # fmt: skip
    return CriticTrainer(data, config, seed=0)


def cloning(data: OfflineData, diversity: Any) -> CloningTrainer:
    config = BehaviorConfig(members=2, hidden=(8,), batch_size=16, steps=60, diversity=diversity)
    return CloningTrainer(data, config, seed=0)


def dynamics(data: OfflineData) -> DynamicsTrainer:
    config = DynamicsConfig(members=2, elites=1, hidden=(8,), batch_size=16, steps=60)
    return DynamicsTrainer(data, config, seed=0, termination=None)


TRAINERS: dict[str, Callable[[OfflineData], Any]] = {
    "critics": lambda data: critics(data, "iql"),
    "sarsa": lambda data: critics(data, "sarsa"),
    "cloning": lambda data: cloning(data, "none"),
    "repulsion": lambda data: cloning(data, "repulsion"),
    "paper's cloning": lambda data: cloning(data, "paper"),
    "dynamics": dynamics,
}


@pytest.mark.parametrize("name", TRAINERS)
def test_trainers_are_replayed_to_the_bit(name: str, data: OfflineData) -> None:
    plain, taped = (TRAINERS[name](data) for _ in range(2))
    assert isinstance(taped, Steady)
    follow(plain, taped, Replays(taped, StandIn()), 36)


@pytest.mark.parametrize("name", ["iql", "rebrac"])
def test_a_replayed_training_goes_on_with_the_same_bits(name: str, data: OfflineData) -> None:
    """From a state that was kept between two replays."""
    plain, taped, later = (OfflineTraining(made(name, data), data, FITTING, seed=1) for _ in range(3))
    replays = Replays(taped, StandIn())
    for _ in range(16):
        plain.step()
        replays.step()
    later.load_state_dict(copy.deepcopy(taped.state_dict()))
    follow(plain, later, Replays(later, StandIn()))


class Walk:
    """One number that moves, in a way that is given."""

    def __init__(self, move: Callable[["Walk"], Any]) -> None:
        self.at, self.count, self.move = torch.zeros(()), 0, move
        self.draws = torch.Generator().manual_seed(0)

    def step(self) -> dict[str, Tensor]:
        self.move(self)
        also_when_replayed(self._count)
        return {"at": self.at.clone()}

    def _count(self) -> None:
        self.count += 1

    def phase(self) -> str:
        return "walk"

    def draws_from(self) -> list[torch.Generator]:
        return [self.draws]


REFUSED: dict[str, Callable[[Walk], Any]] = {
    "item": lambda walk: walk.at.add_(walk.at.item() + 1.0),
    "float": lambda walk: walk.at.add_(float(walk.at) + 1.0),
    "branch": lambda walk: walk.at.add_(1.0 if walk.at > 3 else 2.0),
    "tolist": lambda walk: walk.at.add_(sum(walk.at.view(1).tolist())),
    "numpy": lambda walk: walk.at.add_(walk.at.numpy().item()),
    "cpu": lambda walk: walk.at.add_(walk.at.cpu()),
    "number from Python": lambda walk: walk.at.add_(torch.tensor(1.0)),
    "rows by a mask": lambda walk: walk.at.add_(walk.at.view(1)[walk.at.view(1) > 0].sum()),
    "nonzero": lambda walk: walk.at.add_(walk.at.view(1).nonzero().sum()),
    "strange generator": lambda walk: walk.at.add_(torch.rand((), generator=torch.Generator())),
    "default generator": lambda walk: walk.at.add_(torch.rand(())),
    "noise in place": lambda walk: walk.at.normal_(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_cannot_record_is_refused(name: str) -> None:
    replays = Replays(Walk(REFUSED[name]), StandIn())
    for _ in range(3):
        replays.step()
    with pytest.raises(NotRecordableError):
        replays.step()


def steps_by_python(walk: Walk) -> None:
    walk.at += 1.0 / (1 + walk.count)


def new_memory(walk: Walk) -> None:
    walk.at = walk.at + 1.0


@pytest.mark.parametrize("move", [steps_by_python, new_memory])
def test_a_step_that_python_changes_is_another_one_when_replayed(move: Callable[[Walk], None]) -> None:
    """Which is how the tests above see it."""
    plain, taped = Walk(move), Walk(move)
    replays = Replays(taped, StandIn())
    found = [(float(plain.step()["at"]), float(replays.step()["at"])) for _ in range(8)]
    assert all(a == b for a, b in found[:4])
    assert any(a != b for a, b in found[4:])


def test_python_counts_and_draws_go_on_in_replays() -> None:
    def drawn(walk: Walk) -> Any:
        return walk.at.add_(torch.rand((), generator=walk.draws))

    plain, taped = Walk(drawn), Walk(drawn)
    replays = Replays(taped, StandIn())
    for _ in range(9):
        assert torch.equal(plain.step()["at"], replays.step()["at"])
    assert (taped.count, plain.count) == (9, 9)
    recorder = replays.recorder
    assert isinstance(recorder, StandIn)
    assert (recorder.rehearsed, recorder.replayed) == (3, 5)


def test_work_for_python_is_done_in_the_open() -> None:
    """A step of no phase is never recorded."""
    walk = Walk(REFUSED["item"])
    walk.phase = lambda: None  # type: ignore[method-assign,assignment,return-value]
    replays = Replays(walk, StandIn())
    for _ in range(6):
        replays.step()
    assert replays.recorded == {}


def test_on_a_cpu_steps_are_plain() -> None:
    walk = Walk(steps_by_python)
    assert fastest(walk, walk.step) == walk.step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
@pytest.mark.parametrize("name", LEARNERS)
def test_a_gpu_replays_what_it_does_plainly(name: str, data: OfflineData) -> None:
    there = type(data)(**{key: value.cuda() for key, value in vars(data).items()})
    plain, taped = (OfflineTraining(made(name, there), there, FITTING, seed=1) for _ in range(2))
    step = fastest(taped, taped.step)
    assert step != taped.step
    for _ in range(STEPS):
        expected, said = plain.step(), step()
    for key, value in expected.items():  # a GPU adds in another order each time: steps drift apart
        torch.testing.assert_close(said[key], value, rtol=2e-2, atol=1e-3)
