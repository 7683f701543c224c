"""Any learner with a diffusion model beside it, which makes a part of the rows it learns from."""

import copy
from collections.abc import Hashable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.diffusion import Denoiser, RowVectors
from unio4_lib.learning.learner import BaseLearner
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import Replay
from unio4_lib.learning.updates import Group, Updates, half_cosine
from unio4_lib.methods.offpolicy import MakeLearner, OffPolicyRun
from unio4_lib.settings.model import StageConfig

PIECES = 50  # of a training of the denoiser: between them training can be stopped
MODEL_STREAM = 1 << 33  # of random numbers: those of the learner are the base's


class GeneratorConfig(StageConfig):
    """The denoiser beside a learner."""

    made_share: float = Field(
        1 / 3, ge=0, lt=1, description="Share of made rows in minibatches (paper: 1/3); 0 makes none."
    )
    refresh_every: int = Field(
        10_000, ge=1, description="Environment steps between refreshes of made rows (paper: 100,000)."
    )
    made_rows: int = Field(20_000, ge=1, description="Rows made in each refresh (a port: 100,000).")
    denoiser_width: int = Field(256, ge=1, description="Width of the denoiser (paper: 1024).")
    denoiser_depth: int = Field(6, ge=1, description="Residual layers of the denoiser (paper: 6).")
    denoiser_updates: int = Field(
        5_000, ge=1, description="Updates of the denoiser in each refresh (paper: 100,000)."
    )
    denoiser_batch: int = Field(256, ge=2, description="Rows per update of the denoiser (paper: 256).")
    denoiser_rate: float = Field(
        3e-4, gt=0, description="Adam step size of the denoiser, falling along half a cosine (paper: 3e-4)."
    )
    denoiser_polyak: float = Field(
        0.005, gt=0, le=1, description="Rate of the slow copy that makes the rows (not known; a port: 0.005)."
    )
    sampling_steps: int = Field(32, ge=2, description="Steps from noise to a row (paper: 128).")
    churn: float = Field(10.0, ge=0, description="Noise that these steps add (a port: 40 in 128 steps).")
    rows_at_once: int = Field(4_096, ge=1, description="Rows that are made together.")


class Generating(BaseLearner):
    """A learner with a denoiser beside it, which is trained on from time to time and then makes rows.

    The learner sees these rows in its minibatches, and is untouched otherwise. A subclass says what the
    denoiser is trained on and how rows are made.
    """

    parts: ClassVar[tuple[str, ...]] = ("base", "denoiser", "slow_denoiser")
    numbers: ClassVar[tuple[str, ...]] = ("next_refresh", "trained", "pending")
    classes: ClassVar[int] = 0  # of rows
    settings: GeneratorConfig

    def __init__(
        self, make_base: MakeLearner, data: OfflineData, config: OffPolicyRun, generator: torch.Generator
    ) -> None:
        super().__init__(data, generator)
        own, device = config.own, data.observations.device
        self.base, self.settings = make_base(data, config, generator), own
        self.policy = self.base.policy
        self.vectors = RowVectors(data)
        columns = sum(self.vectors.sizes)
        shape = (columns, self.classes, own.denoiser_width, own.denoiser_depth)
        self.denoiser = Denoiser(*shape, generator=generator).to(device)
        self.slow_denoiser = copy.deepcopy(self.denoiser).requires_grad_(False)
        group = Group([self.denoiser], own.denoiser_rate, half_cosine(own.denoiser_updates))
        self.updates = Updates(
            {"denoiser": group}, [(self.slow_denoiser, self.denoiser)], own.denoiser_polyak
        )
        self.draws = torch.Generator(device).manual_seed(generator.initial_seed() + MODEL_STREAM)
        self.next_refresh, self.trained = 0, 0  # steps in the environment, updates of the denoiser
        self.pending = torch.zeros(0, columns, device=device)  # vectors that this refresh has made so far

    def update(self, batch: Batch) -> Metrics:
        return self.base.update(batch)

    def phase(self) -> Hashable:
        return self.base.phase()

    def draws_from(self) -> list[torch.Generator]:
        return self.base.draws_from()

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.base.explore(observations, noise)

    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        return self.base.look(batch, returns)

    def go_online(self) -> None:
        self.base.go_online()

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        """A piece of a refresh where it is time for one: the denoiser's training, then its rows."""
        own = self.settings
        if own.made_share == 0 or replay.fresh == 0 or env_steps < self.next_refresh:
            return self.base.prepare(replay, env_steps)
        if self.trained < own.denoiser_updates:
            return self.train_denoiser(replay)
        made = self.make_rows(min(own.rows_at_once, own.made_rows - len(self.pending)))
        self.pending = torch.cat([self.pending.to(made.device), made])  # states come back on the CPU
        count = self.pending.new_tensor(float(len(self.pending)))
        if len(self.pending) == own.made_rows:
            replay.put_made(self.unpacked(self.pending), own.made_share)
            self.trained, self.pending = 0, self.pending[:0]
            self.next_refresh = env_steps + own.refresh_every
        return {"learner/made_rows": count}

    def train_denoiser(self, replay: Replay) -> Metrics:
        """One piece of its training; in each refresh its step size begins anew."""
        if self.trained == 0:
            self.updates.forget()
        own = self.settings
        until = min(own.denoiser_updates, self.trained + -(-own.denoiser_updates // PIECES))
        metrics: Metrics = {}
        for _ in range(until - self.trained):
            rows, labels = self.labelled(replay)
            losses = self.denoiser.losses(rows, labels, self.draws)
            metrics = self.updates.step({"denoiser": losses})
            self.updates.follow()
        self.trained = until
        return metrics

    def unpacked(self, vectors: Tensor) -> Batch:
        """The rows of these vectors [made_rows, columns]."""
        return self.vectors.unpack(vectors)

    def labelled(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Vectors of rows to learn from, and their classes [B]."""
        raise NotImplementedError

    def make_rows(self, count: int) -> Tensor:
        """Vectors [count, columns]."""
        raise NotImplementedError
