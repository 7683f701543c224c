"""CFDG (Huang et al., ICML 2025) on IQL: rows of a diffusion model that knows old from new ones."""

import copy
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.diffusion import Denoiser, RowVectors, guided, heun
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.replay import Replay
from unio4_lib.learning.updates import Group, Updates, half_cosine
from unio4_lib.methods.iql import Iql, IqlConfig, IqlRun
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.settings.offpolicy import BalancedTuneConfig

OLD, NEW = 0, 1  # classes of rows
PIECES = 50  # of a training of the denoiser: between them training can be stopped
MODEL_STREAM = 1 << 33  # of random numbers: those of the learner are the base's


class CfdgConfig(IqlConfig):
    """The learner."""

    made_share: float = Field(
        1 / 3, ge=0, lt=1, description="Share of made rows in minibatches (paper: 1/3); 0 is plain IQL."
    )
    refresh_every: int = Field(
        10_000, ge=1, description="Environment steps between refreshes of made rows (paper: 100,000)."
    )
    made_rows: int = Field(20_000, ge=1, description="Rows made in each refresh (a port: 100,000).")
    new_part: float = Field(0.8, ge=0, le=1, description="Part of them made like new rows (paper: 0.8).")
    guidance: float = Field(
        1.0, ge=0, description="How far away from rows of no class (not known; a port: 1); 0 is no guidance."
    )
    forget_class: float = Field(
        0.1, ge=0, le=1, description="Share of rows that train without their class (not known; a port: 0.1)."
    )
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


class CfdgRun(OffPolicyRun):
    """IQL offline, then online on old, new and made rows."""

    title: ClassVar[str] = "CFDG (IQL)"

    method: Literal["cfdg"] = Field("cfdg", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    cfdg: CfdgConfig = CfdgConfig()


class Cfdg(Iql):
    """IQL with a denoiser that is trained on, from time to time, and then makes rows."""

    parts: ClassVar[tuple[str, ...]] = (*Iql.parts, "denoiser", "slow_denoiser", "denoiser_updates")
    numbers: ClassVar[tuple[str, ...]] = ("next_refresh", "trained", "pending")
    streams: ClassVar[tuple[str, ...]] = ("draws", "model_draws")
    settings: CfdgConfig

    def __init__(self, data: OfflineData, config: CfdgRun, generator: torch.Generator) -> None:
        own, device = config.cfdg, data.observations.device
        super().__init__(data, IqlRun(dataset=config.dataset, train=config.train, iql=own), generator)
        self.vectors = RowVectors(data)
        columns = sum(self.vectors.sizes)
        shape = (columns, 2, own.denoiser_width, own.denoiser_depth)
        self.denoiser = Denoiser(*shape, generator=generator).to(device)
        self.slow_denoiser = copy.deepcopy(self.denoiser).requires_grad_(False)
        group = Group([self.denoiser], own.denoiser_rate, half_cosine(own.denoiser_updates))
        slow = [(self.slow_denoiser, self.denoiser)]
        self.denoiser_updates = Updates({"denoiser": group}, slow, own.denoiser_polyak)
        self.model_draws = torch.Generator(device).manual_seed(generator.initial_seed() + MODEL_STREAM)
        self.next_refresh, self.trained = 0, 0  # steps in the environment, updates of the denoiser
        self.pending = torch.zeros(0, columns, device=device)  # vectors that this refresh has made so far

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        """A piece of a refresh where it is time for one: the denoiser's training, then its rows."""
        own = self.settings
        if own.made_share == 0 or replay.fresh == 0 or env_steps < self.next_refresh:
            return {}
        if self.trained < own.denoiser_updates:
            return self.train_denoiser(replay)
        made = self.make_rows(min(own.rows_at_once, own.made_rows - len(self.pending)))
        self.pending = torch.cat([self.pending.to(made.device), made])  # states come back on the CPU
        count = self.pending.new_tensor(float(len(self.pending)))
        if len(self.pending) == own.made_rows:
            replay.put_made(self.vectors.unpack(self.pending), own.made_share)
            self.trained, self.pending = 0, self.pending[:0]
            self.next_refresh = env_steps + own.refresh_every
        return {"learner/made_rows": count}

    def train_denoiser(self, replay: Replay) -> Metrics:
        """One piece of its training; in each refresh its step size begins anew."""
        if self.trained == 0:
            self.denoiser_updates.forget()
        own = self.settings
        until = min(own.denoiser_updates, self.trained + -(-own.denoiser_updates // PIECES))
        metrics: Metrics = {}
        for _ in range(until - self.trained):
            rows, labels = self.labelled(replay)
            losses = self.denoiser.losses(rows, labels, self.model_draws)
            metrics = self.denoiser_updates.step({"denoiser": losses})
            self.denoiser_updates.follow()
        self.trained = until
        return metrics

    def labelled(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Vectors of as many old as new rows, and their classes [B], some of which are forgotten."""
        own, draws = self.settings, self.model_draws
        count, found = own.denoiser_batch // 2, []
        for rows, total in ((replay.data.rows, len(replay.data)), (replay.fresh_rows, replay.fresh)):
            found.append(rows(torch.randint(total, (count,), generator=draws, device=draws.device)))
        labels = torch.tensor([OLD, NEW], device=draws.device).repeat_interleave(count)
        forgotten = torch.rand(len(labels), generator=draws, device=draws.device) < own.forget_class
        vectors = torch.cat([self.vectors.pack(rows) for rows in found])
        return vectors, labels.masked_fill(forgotten, self.denoiser.unknown)

    @torch.no_grad()
    def make_rows(self, count: int) -> Tensor:
        """Vectors [count, columns] by the slow copy; the first rows of a refresh are made like new ones."""
        own, draws, so_far = self.settings, self.model_draws, len(self.pending)
        place = torch.arange(so_far, so_far + count, device=draws.device)
        labels = torch.where(place < round(own.new_part * own.made_rows), NEW, OLD)
        noise = torch.randn(count, self.pending.shape[1], generator=draws, device=draws.device)
        model, unknown = self.slow_denoiser, torch.full_like(labels, self.slow_denoiser.unknown)
        denoise = guided(model.towards(labels), model.towards(unknown), own.guidance)
        return heun(denoise, noise, own.sampling_steps, churn=own.churn, draws=draws)


ROOM = OffPolicy(
    "cfdg",
    "CFDG on IQL: a third of the rows online are made by a diffusion model that knows old from new ones",
    CfdgRun,
    Cfdg,
    __name__,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
