"""A dataset that means nothing, of the size of a real one: what is timed never looks at its meaning."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import Critics, CriticTrainer
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import DEFAULT, find_method
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.sim import make_sim
from unio4_lib.sim.terminations import known_termination
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.task import Task

EPISODE = 500  # rows


@dataclass(frozen=True)
class World:
    """What loops are made from; untrained networks where a loop only uses them."""

    env_id: str
    rows: int
    preset: str
    overrides: tuple[str, ...]
    folder: Path  # for files

    def config(self, method: str = DEFAULT) -> Any:
        """The settings of a method by the preset, with those of ``overrides`` that it has."""
        own = [text for text in self.overrides if _section(text) in find_method(method).settings.model_fields]
        return load_config(preset=self.preset, dataset="random", method=method, overrides=own)

    def check(self, methods: Iterable[str]) -> None:
        """Refuse what none of these methods could be told."""
        known = set().union(*(find_method(name).settings.model_fields for name in methods))
        for text in self.overrides:
            if _section(text) not in known:
                raise InputError(f"--set {text}: nothing that is timed has this setting")

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.config())

    @cached_property
    def task(self) -> Task:
        return Task(self.env_id, {})

    @cached_property
    def transitions(self) -> Transitions:
        sim = make_sim(self.env_id, 1)
        try:
            draw = np.random.default_rng(0)
            states = draw.standard_normal((self.rows + 1, sim.observation_dim), np.float32)
            ends = np.zeros(self.rows, bool)
            ends[EPISODE - 1 :: EPISODE] = True
            ends[-1] = True
            low, high = sim.action_low.astype(np.float32), sim.action_high.astype(np.float32)
            share = draw.random((self.rows, sim.action_dim), np.float32)
            return Transitions.build(
                observations=states[:-1],
                actions=low + share * (high - low),
                rewards=draw.standard_normal(self.rows, np.float32),
                next_observations=states[1:],
                terminals=np.zeros(self.rows, bool),
                timeouts=ends,
                info=DatasetInfo(self.env_id, {}, tuple(low), tuple(high), "random rows"),
                clip_actions=True,
            )
        finally:
            sim.close()

    @cached_property
    def data(self) -> OfflineData:
        config = self.config()
        return OfflineData.build(
            self.transitions, config.prepare, discount=config.critics.discount, device=self.device
        )

    @cached_property
    def policies(self) -> GaussianPolicy:
        return CloningTrainer(self.data, self.config().behavior, seed=0).result().requires_grad_(False)

    @cached_property
    def critics(self) -> Critics:
        return CriticTrainer(self.data, self.config().critics, seed=0).result()

    @cached_property
    def models(self) -> DynamicsModel:
        """They change nothing, so that no rollout ends before its time."""
        settings = self.config().dynamics
        model = DynamicsModel(
            settings.elites,
            self.data.observation_dim,
            self.data.action_dim,
            settings.hidden,
            termination=known_termination(self.env_id),
        )
        return model.to(self.device).requires_grad_(False)


def _section(override: str) -> str:
    return override.partition("=")[0].partition(".")[0]
