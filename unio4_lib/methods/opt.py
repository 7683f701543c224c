"""OPT (Shin et al., ICML 2025), here on TD3+BC: a second critic, prepared for new rows before it counts."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from unio4_lib.learning.density_ratio import DensityRatio, weights_of_rows
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.q_ensemble import QEnsemble
from unio4_lib.learning.replay import Replay
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3 import Td3, Td3Config
from unio4_lib.methods.td3_bc import Td3Bc, Td3BcConfig
from unio4_lib.settings.offpolicy import OffPolicyTuneConfig

PIECES = 50  # of the preparation: between them training can be stopped
SECOND_STREAM = 1 << 33  # of random numbers: those of the first critic are the base's


class SecondCriticConfig(Td3Config):
    """A second critic beside that of a learner."""

    preparation: float = Field(
        2.0,
        ge=0,
        description="Updates that prepare the second critic for each step of finetune.warmup_steps "
        "(paper: 50,000 on 25,000 steps).",
    )
    inner_rate: float = Field(
        3e-4, ge=0, description="Step on old rows after which new ones should fit (paper: 3e-4)."
    )
    kappa_start: float = Field(
        0.1, ge=0, le=1, description="Share of the second critic at first (paper: 0.1-1 by data)."
    )
    kappa_end: float = Field(0.9, ge=0, le=1, description="Its share in the end (paper: 0.9).")
    kappa_rise: float = Field(
        0.5, gt=0, le=1, description="Part of the steps after the warm-up in which it rises (paper: half)."
    )
    careful_policy: bool = Field(
        False, description="Whether the policy follows the smaller Q of each critic or its first one (TD3)."
    )
    fresh_adam: bool = Field(True, description="Whether Adam forgets at the switch (paper: yes).")
    ratio_power: float = Field(
        0.2,
        ge=0,
        description="Power of the density of new over old rows in the weight of a row (paper: 0.2); 0: none.",
    )
    ratio_every: int = Field(1_000, ge=1, description="Environment steps between weighings of all rows.")
    ratio_updates: int = Field(500, ge=1, description="Updates of the density ratio before each of them.")


class OptConfig(SecondCriticConfig, Td3BcConfig):
    """The learner."""

    imitation_online: float = Field(
        0.0, ge=0, le=1, description="Share of the weight of imitation that is left online (paper: 0)."
    )


class OptTuneConfig(OffPolicyTuneConfig):
    """Fine-tuning of an off-policy learner in its environment; its warm-up is what it prepares for."""

    warmup_steps: int = Field(
        5_000,
        ge=1,
        description="First environment steps, by the policy as it came; the second critic is prepared for "
        "them (paper: 25,000).",
    )


class OptRun(OffPolicyRun):
    """TD3+BC offline; online a second critic takes over."""

    title: ClassVar[str] = "OPT (TD3+BC)"

    method: Literal["opt"] = Field("opt", description="The offline-to-online method.")
    finetune: OptTuneConfig = OptTuneConfig()
    opt: OptConfig = OptConfig()


class Mixture(nn.Module):
    """Share of the second critic [], on the device."""

    kappa: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("kappa", torch.full((), start, dtype=torch.float64))


class SecondCritic(Td3):
    """A second twin critic, of which the policy of any kind of TD3 hears more and more."""

    parts: ClassVar[tuple[str, ...]] = (*Td3.parts, "second", "ratio", "own_updates", "mixture")
    numbers: ClassVar[tuple[str, ...]] = ("prepared", "next_weighing")
    streams: ClassVar[tuple[str, ...]] = ("draws", "own_draws")
    settings: SecondCriticConfig

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        own, tune, device = self.settings, config.finetune, data.observations.device
        self.second = QEnsemble(data, 2, own.hidden, layer_norm=own.layer_norm, generator=generator)
        sizes = data.observation_dim, data.action_dim
        self.ratio = DensityRatio(*sizes, own.hidden, generator=generator)
        for net in (self.second, self.ratio):
            net.to(device)
        groups = {"second": self.second.q, "ratio": self.ratio}
        self.own_updates = Updates(
            {name: Group([net], own.learning_rate) for name, net in groups.items()},
            [(self.second.slow, self.second.q)],
            own.polyak,
        )
        self.own_draws = torch.Generator(device).manual_seed(generator.initial_seed() + SECOND_STREAM)
        self.batch_size, self.warmup = config.train.batch_size, tune.warmup_steps
        self.rise = max(1.0, own.kappa_rise * (tune.env_steps - tune.warmup_steps))
        self.preparation = round(own.preparation * tune.warmup_steps)
        self.online, self.prepared, self.next_weighing = False, 0, 0
        self.mixture = Mixture(own.kappa_start).to(device)

    def go_online(self) -> None:
        """What the learner loosens, and steps as of a new training."""
        super().go_online()
        self.online = True
        if self.settings.fresh_adam:
            self.updates.forget()

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        """The second critic before the first update; later, from time to time, weights of rows."""
        if replay.fresh == 0:
            return super().prepare(replay, env_steps)
        if self.prepared < self.preparation:
            return self.prepare_second(replay)
        own, share = self.settings, min(1.0, max(0, env_steps - self.warmup) / self.rise)
        self.mixture.kappa.fill_(own.kappa_start + (own.kappa_end - own.kappa_start) * share)
        if own.ratio_power == 0 or env_steps < self.next_weighing:
            return super().prepare(replay, env_steps)
        self.next_weighing = env_steps + own.ratio_every
        return self.weigh(replay)

    def prepare_second(self, replay: Replay) -> Metrics:
        """One piece of the updates by which it learns to learn from new rows."""
        until = min(self.preparation, self.prepared + -(-self.preparation // PIECES))
        metrics: Metrics = {}
        for _ in range(until - self.prepared):
            metrics = self.own_updates.step({"second": self.meta_loss(*self.old_and_new(replay))})
            self.own_updates.follow()
        self.prepared = until
        return {"learner/preparation_loss": metrics["learner/second_loss"]}

    def meta_loss(self, old: Batch, new: Batch) -> Tensor:
        """On old rows, and on new ones after a step on the old ones; the new count at most like the old."""
        weights: dict[str, Tensor] = dict(self.second.q.named_parameters())
        loss = self.td(weights, old, self.second_targets(old)).mean()
        # The gradient goes through the step, too: that is what makes the critic easy to move.
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {
            name: part - self.settings.inner_rate * gradient
            for (name, part), gradient in zip(weights.items(), gradients, strict=True)
        }
        later = self.td(moved, new, self.second_targets(new)).mean()
        return loss + (torch.minimum(loss, later) / later.clamp(min=1e-12)).detach() * later

    def td(self, weights: dict[str, Tensor], batch: Batch, targets: Tensor) -> Tensor:
        """Squared errors [B] of the second critic if it had these weights."""
        inputs = torch.cat([batch.observations, batch.actions], dim=-1)
        found = functional_call(self.second.q, weights, (inputs,))[..., 0]
        errors = found * self.second.scale + self.second.shift - targets
        return (errors / self.second.scale).square().sum(dim=0)

    @torch.no_grad()
    def second_targets(self, batch: Batch) -> Tensor:
        """What the second Q should be [B], by its own slow copies."""
        actions = self.smoothed(batch.next_observations, self.own_draws)
        following = self.second.slow_values(batch.next_observations, actions).min(dim=0).values
        return batch.rewards + self.discount * (1.0 - batch.terminals) * following

    def weigh(self, replay: Replay) -> Metrics:
        """Let rows be drawn by how much they look like new ones."""
        for _ in range(self.settings.ratio_updates):
            metrics = self.own_updates.step({"ratio": self.ratio.losses(*self.old_and_new(replay))})
        data, ring = replay.data, replay.ring
        old = self.ratio.of_all(data.observations, data.actions)
        new = self.ratio.of_all(ring.observations[: replay.fresh], ring.actions[: replay.fresh])
        replay.weigh(*weights_of_rows(old, new, self.settings.ratio_power))
        return metrics

    def old_and_new(self, replay: Replay) -> tuple[Batch, Batch]:
        """A minibatch of each."""
        places = [
            torch.randint(count, (self.batch_size,), generator=self.own_draws, device=self.own_draws.device)
            for count in (len(replay.data), replay.fresh)
        ]
        return replay.data.rows(places[0]), replay.fresh_rows(places[1])

    def update(self, batch: Batch) -> Metrics:
        """The learner's; online the second critic learns from the same rows."""
        if not self.online:
            return super().update(batch)
        errors = self.second.errors(batch, self.second_targets(batch)).sum(dim=0)
        metrics = self.own_updates.step({"second": errors})
        self.own_updates.follow()
        return super().update(batch) | metrics | {"learner/kappa": self.mixture.kappa}

    def followed_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Both critics' [B], mixed."""
        first = super().followed_values(observations, actions)
        if not self.online:
            return first
        second = self.policy_value(self.second.values(observations, actions))
        kappa = self.mixture.kappa
        return (1.0 - kappa) * first + kappa * second

    def policy_value(self, values: Tensor) -> Tensor:
        return values.min(dim=0).values if self.settings.careful_policy else super().policy_value(values)


class Opt(SecondCritic, Td3Bc):
    """On TD3+BC."""

    settings: OptConfig


ROOM = OffPolicy(
    "opt",
    "OPT on TD3+BC: a second critic, prepared for new rows before it counts, and more of it with time",
    OptRun,
    Opt,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
