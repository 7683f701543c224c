"""EDIS (Liu et al., ICML 2024), here on IQL: diffusion rows, led to what the policy would see now."""

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.diffusion import heun
from unio4_lib.learning.energies import Energies, held, pushed
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.replay import Replay
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.methods.generating import Generating, GeneratorConfig
from unio4_lib.methods.iql import Iql, IqlConfig
from unio4_lib.methods.offpolicy import MakeLearner, OffPolicy, OffPolicyRun
from unio4_lib.settings.model import Hidden
from unio4_lib.settings.offpolicy import MIXING, Mixing, OffPolicyTuneConfig


class PushedConfig(GeneratorConfig):
    """Rows that are pushed to what the policy would see."""

    made_share: float = Field(
        0.5, ge=0, lt=1, description="Share of made rows in minibatches (paper: 0.1-0.9 by task); 0: none."
    )
    state_push: float = Field(1.0, ge=0, description="Weight of the energy of states (released: 0.01-2).")
    action_push: float = Field(1.0, ge=0, description="Weight of the energy of actions (released: 0.01-0.2).")
    successor_push: float = Field(
        1.0, ge=0, description="Weight of the energy of what follows (released: 0.01-0.2)."
    )
    energy_hidden: Hidden = Field((256, 256), description="Widths of the energies (released: 256 x 3).")
    energy_rate: float = Field(1e-3, gt=0, description="Adam step size of the energies (released: 1e-3).")
    energy_updates: int = Field(200, ge=1, description="Updates of them in a refresh (released: 20).")
    energy_rows: int = Field(256, ge=2, description="New rows that they learn from in a refresh.")
    energy_others: int = Field(4, ge=1, description="Made rows for each of these (released: 10).")
    released: bool = Field(
        False,
        description="Whether pushes and the rows they are learned from are those of the released code, which "
        "differ from its equations.",
    )


class EdisTuneConfig(OffPolicyTuneConfig):
    """Fine-tuning of an off-policy learner in its environment, from new rows and made ones."""

    mixing: Mixing = Field("online", description=MIXING)


class EdisConfig(PushedConfig, IqlConfig):
    """The learner."""


class EdisRun(OffPolicyRun):
    """IQL offline, then online on new and made rows."""

    title: ClassVar[str] = "EDIS (IQL)"

    method: Literal["edis"] = Field("edis", description="The offline-to-online method.")
    finetune: EdisTuneConfig = EdisTuneConfig()
    edis: EdisConfig = EdisConfig()


class Edis(Generating):
    """Rows are made as all that was seen, and pushed to states, actions and successors of now."""

    parts: ClassVar[tuple[str, ...]] = (*Generating.parts, "energies", "energy_updates")
    settings: PushedConfig

    def __init__(
        self, make_base: MakeLearner, data: OfflineData, config: OffPolicyRun, generator: torch.Generator
    ) -> None:
        super().__init__(make_base, data, config, generator)
        own, device = self.settings, data.observations.device
        columns = sum(self.vectors.sizes)
        self.energies = Energies(3, columns, own.energy_hidden, generator=generator).to(device)
        self.energy_updates = Updates({"energies": Group([self.energies], own.energy_rate)})
        part = torch.repeat_interleave(torch.arange(5), torch.tensor(self.vectors.sizes)).to(device)
        self.state, self.action, self.successor = (part == place for place in (0, 1, 3))
        weights = own.state_push, own.action_push, own.successor_push
        columns_of = self.state, self.action, self.successor
        self.pushes = torch.stack([weight * at for weight, at in zip(weights, columns_of, strict=True)])

    def labelled(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Old and new rows alike."""
        count, old = self.settings.denoiser_batch, len(replay.data)
        place = self.places(old + replay.fresh, count)
        seen = replay.data.rows(place[place < old]), replay.fresh_rows(place[place >= old] - old)
        return torch.cat([self.vectors.pack(rows) for rows in seen]), torch.zeros_like(place)

    def places(self, total: int, count: int) -> Tensor:
        return torch.randint(total, (count,), generator=self.draws, device=self.draws.device)

    def train_denoiser(self, replay: Replay) -> Metrics:
        """When it is trained, the energies are."""
        metrics = super().train_denoiser(replay)
        return metrics | self.contrast(replay) if self.trained == self.settings.denoiser_updates else metrics

    def contrast(self, replay: Replay) -> Metrics:
        """Teach the energies what tells new rows, with the policy's actions, from made ones."""
        wanted, others = self.wanted_and_others(replay)
        for _ in range(self.settings.energy_updates):
            losses = self.energies.losses(wanted, others, self.draws)
            metrics = self.energy_updates.step({"energies": losses})
        return metrics

    @torch.no_grad()
    def wanted_and_others(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Vectors for the energies of state, action and successor [3, B, D], and M others each.

        Others are made freely for the first, behind the state that is wanted for the second, and behind its
        state and action for the third: each energy says only what its own part is about.
        """
        rows = replay.fresh_rows(self.places(replay.fresh, self.settings.energy_rows))
        shape = (len(rows.rewards), self.policy.spec.action_dim)
        noise = torch.randn(shape, generator=self.draws, device=self.draws.device)
        now = self.policy.distribution(rows.observations).sample(noise)[0].clamp(-1.0, 1.0)
        seen, acted = self.vectors.pack(rows), self.vectors.pack(rows._replace(actions=now))
        known = torch.zeros_like(self.state), self.state, self.state | self.action
        wanted = seen, acted, seen
        others = [self.completed(one, columns) for one, columns in zip(wanted, known, strict=True)]
        return torch.stack(wanted), torch.stack(others)

    def completed(self, clean: Tensor, known: Tensor) -> Tensor:
        """Made vectors [B, M, D] that share the known columns with clean ones [B, D]."""
        repeats = clean.repeat_interleave(self.settings.energy_others, dim=0)
        if self.settings.released and bool(known.any()):
            made = torch.where(known, repeats, 0.0)  # its mask covers whole rows: nothing is made
        else:
            made = torch.cat([self.made(part, known) for part in repeats.split(self.settings.rows_at_once)])
        return made.view(len(clean), self.settings.energy_others, -1)

    def made(self, clean: Tensor, known: Tensor | None = None) -> Tensor:
        """Vectors as many as these [B, D]; pushed, or with known columns."""
        own, draws = self.settings, self.draws
        noise = torch.randn(clean.shape, generator=draws, device=clean.device)
        plain = self.slow_denoiser.towards(torch.zeros(len(clean), dtype=torch.int64, device=clean.device))
        if known is None:
            denoise = pushed(plain, self.energies, self.pushes, released=own.released)
        else:
            denoise = held(plain, clean, known)
        return heun(denoise, noise, own.sampling_steps, churn=own.churn, draws=draws)

    @torch.no_grad()
    def make_rows(self, count: int) -> Tensor:
        """Vectors [count, columns], pushed."""
        return self.made(torch.zeros(count, self.pushes.shape[1], device=self.pushes.device))


ROOM = OffPolicy(
    "edis",
    "EDIS on IQL: online rows and rows of a diffusion model that is led to what the policy would see now",
    EdisRun,
    partial(Edis, Iql),
    __name__,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
