"""CFDG (Huang et al., ICML 2025), here on IQL: rows of a diffusion model that knows old from new ones."""

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.diffusion import guided, heun
from unio4_lib.learning.offline_data import Batch
from unio4_lib.learning.replay import Replay
from unio4_lib.methods.generating import Generating, GeneratorConfig
from unio4_lib.methods.iql import Iql, IqlConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.settings.offpolicy import BalancedTuneConfig

OLD, NEW = 0, 1  # classes of rows


class GuidedConfig(GeneratorConfig):
    """Rows that are made towards a class."""

    new_part: float = Field(0.8, ge=0, le=1, description="Part of them made like new rows (paper: 0.8).")
    guidance: float = Field(
        1.0, ge=0, description="How far away from rows of no class (not known; a port: 1); 0 is no guidance."
    )
    forget_class: float = Field(
        0.1, ge=0, le=1, description="Share of rows that train without their class (not known; a port: 0.1)."
    )


class CfdgConfig(GuidedConfig, IqlConfig):
    """The learner."""


class CfdgRun(OffPolicyRun):
    """IQL offline, then online on old, new and made rows."""

    title: ClassVar[str] = "CFDG (IQL)"

    method: Literal["cfdg"] = Field("cfdg", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    cfdg: CfdgConfig = CfdgConfig()


class Cfdg(Generating):
    """Rows are made towards a class: of old ones, or of new ones."""

    classes: ClassVar[int] = 2
    settings: GuidedConfig

    def labelled(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Vectors of as many old as new rows, and their classes [B], some of which are forgotten."""
        own, draws = self.settings, self.draws
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
        own, draws, so_far = self.settings, self.draws, len(self.pending)
        place = torch.arange(so_far, so_far + count, device=draws.device)
        labels = torch.where(place < self.new_rows(), NEW, OLD)
        noise = torch.randn(count, self.pending.shape[1], generator=draws, device=draws.device)
        model, unknown = self.slow_denoiser, torch.full_like(labels, self.slow_denoiser.unknown)
        denoise = guided(model.towards(labels), model.towards(unknown), own.guidance)
        return heun(denoise, noise, own.sampling_steps, churn=own.churn, draws=draws)

    def new_rows(self) -> int:
        """How many rows of a refresh are made like new ones."""
        return round(self.settings.new_part * self.settings.made_rows)

    def unpacked(self, vectors: Tensor) -> Batch:
        """Rows that are made like new ones are so, to learners that tell them from others."""
        place = torch.arange(len(vectors), device=vectors.device)
        return super().unpacked(vectors)._replace(recent=(place < self.new_rows()).float())


ROOM = OffPolicy(
    "cfdg",
    "CFDG on IQL: a third of the rows online are made by a diffusion model that knows old from new ones",
    CfdgRun,
    partial(Cfdg, Iql),
    __name__,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
