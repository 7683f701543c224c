"""What is measured: every loop that a run spends its time in, by the settings of a preset."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import torch

from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.artifacts.store import open_store
from unio4_lib.bench.machine import settled
from unio4_lib.bench.meter import Work
from unio4_lib.bench.world import World
from unio4_lib.data.transitions import Transitions
from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import CriticTrainer
from unio4_lib.learning.finetune import FineTuning
from unio4_lib.learning.loop import Trainer
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.learning.replays import fastest
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.methods.unio4.learners import ModelLearner
from unio4_lib.sim import make_sim
from unio4_lib.sim.terminations import known_termination
from unio4_lib.stages.training import score

HORIZON = 100  # model steps of a rollout that is timed
ENVIRONMENTS = 32
AHEAD = 20  # steps that a GPU is told at once
MEGABYTE = 1e6


@dataclass(frozen=True)
class Loop:
    """One part, in units of its work."""

    name: str
    unit: str
    make: Callable[[World], Work]


class Training:
    """Work that is updates, taken as a run takes them."""

    def __init__(self, trainer: Trainer, device: torch.device) -> None:
        self.trainer = trainer
        self._step, self._wait = fastest(trainer, trainer.step), settled(device)
        # A run tells a GPU the next steps before it has done the last.
        self._steps = AHEAD if device.type == "cuda" else 1

    def __call__(self) -> float:
        for _ in range(self._steps):
            self._step()
        self._wait()
        return float(self._steps)


def all_loops() -> list[Loop]:
    """In the order of a run, then the learners of other methods."""
    own = [
        Loop("cloning", "update", _cloning),
        Loop("critics", "update", _critics),
        Loop("models", "update", _models),
        Loop("improvement", "model step", _improvement),
        Loop("judging", "model step", _judging),
        Loop("online PPO", "env step", _online),
        Loop("simulation", "env step", _simulation),
        Loop("evaluation", "env step", _evaluation),
        Loop("dataset", "row", _dataset),
        Loop("artifact", "MB", _artifact),
        Loop("start of the command", "start", _start),
    ]
    return own + list(_learners())


def _learners() -> Iterator[Loop]:
    for name in METHODS:
        if find_method(name).pipeline == "offpolicy":
            yield Loop(name, "update", partial(_learner, name))


def _cloning(world: World) -> Work:
    return Training(CloningTrainer(world.data, world.config().behavior, seed=0), world.device)


def _critics(world: World) -> Work:
    return Training(CriticTrainer(world.data, world.config().critics, seed=0), world.device)


def _models(world: World) -> Work:
    ending = known_termination(world.env_id)
    settings = world.config().dynamics.model_copy(update={"steps": 1 << 40})  # its step size falls to zero
    return Training(DynamicsTrainer(world.data, settings, seed=0, termination=ending), world.device)


def _learner(name: str, world: World) -> Work:
    config = world.config(name)
    room = import_module(METHODS[name].partition(":")[0]).ROOM
    learner = room.make(world.data, config, torch.Generator().manual_seed(0))
    return Training(OfflineTraining(learner, world.data, config.train, seed=0), world.device)


def _improvement(world: World) -> Work:
    settings = world.config().improve
    learner = ModelLearner(world.policies.members([0]), world.data, world.models, settings, seed=0)
    wait = settled(world.device)

    def work() -> float:
        learner.step()
        wait()
        return float(learner.tracks[0].collector.sim.num_envs * settings.rollout_steps)

    return work


def _judging(world: World) -> Work:
    settings = world.config().improve.model_copy(update={"horizon": HORIZON})
    judge = PolicyEvaluator(world.data, world.models, world.critics, settings, time_limit=HORIZON)
    policies, wait = world.policies, settled(world.device)
    rollouts = -(-settings.starts // world.models.members) * world.models.members

    def work() -> float:
        judge.estimate(policies, seed=0)
        wait()
        return float(len(judge.ways) * policies.spec.members * rollouts * HORIZON)

    return work


def _online(world: World) -> Work:
    policy = world.policies.members([0])
    ppo = FineTuning(policy, world.config().finetune, world.task.sim, seed=0).ppo

    def work() -> float:
        before = ppo.env_steps
        ppo.train()
        return float(ppo.env_steps - before)

    return work


def _simulation(world: World) -> Work:
    """Random actions; one thread, as everything here."""
    sim = make_sim(world.env_id, ENVIRONMENTS, threads=1)
    sim.reset(0)
    share = np.random.default_rng(0).random((16, ENVIRONMENTS, sim.action_dim))
    actions = sim.action_low + share * (sim.action_high - sim.action_low)

    def work() -> float:
        for row in actions:
            sim.step(row)
        return float(len(actions) * ENVIRONMENTS)

    return work


def _evaluation(world: World) -> Work:
    policy = world.policies.members([0])
    return lambda: float(score(world.task, policy, ENVIRONMENTS, 0).lengths.sum())


def _dataset(world: World) -> Work:
    folder = world.folder / "dataset"
    if not folder.exists():
        world.transitions.save(folder)
    return lambda: float(Transitions.load(folder, verify=True).num_transitions)


def _artifact(world: World) -> Work:
    """Published and fetched again, every byte hashed on both ways."""
    source, root, target = (world.folder / name for name in ("files", "root", "fetched"))
    source.mkdir(exist_ok=True)
    (source / "part.bin").write_bytes(np.random.default_rng(0).bytes(16_000_000))

    def work() -> float:
        for folder in (root, target):
            shutil.rmtree(folder, ignore_errors=True)
        store = open_store(str(root))
        manifest = Manifest.of_folder(source, kind="bench", stage="bench", config_digest="0" * 64)
        store.fetch(store.publish(source, manifest), target)
        return manifest.total_bytes / MEGABYTE

    return work


def _start(world: World) -> Work:
    command = [sys.executable, "-m", "unio4_lib.cli", "--help"]

    def work() -> float:
        subprocess.run(command, check=True, capture_output=True)
        return 1.0

    return work
