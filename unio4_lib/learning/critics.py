"""Q and V of the dataset: expectile regression (IQL) or SARSA with Monte-Carlo values.

Networks learn standardized values; ``scale`` and ``shift`` (fixed at the start from the Monte-Carlo
returns) turn them into the unit of the scaled rewards, so one learning rate suits every task.
"""

import copy
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unio4_lib.data.normalize import discounted_returns
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group, Updates, straight
from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.settings.model import CriticsConfig

MIN_SCALE = 1e-3  # constant returns must not blow up the targets


class Critics(nn.Module):
    """Twin Q, its slow copy and V; all values in the unit of the scaled rewards."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self, observation_dim: int, action_dim: int, config: CriticsConfig, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        norm = config.layer_norm
        inputs = observation_dim + action_dim
        self.q = EnsembleMLP(2, inputs, 1, config.q_hidden, layer_norm=norm, generator=generator)
        self.v = EnsembleMLP(1, observation_dim, 1, config.v_hidden, layer_norm=norm, generator=generator)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def q_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Both online Q [2, ...] for normalized observations [..., D] and unit actions [..., A]."""
        return self._q(self.q, observations, actions)

    def target_min_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """min of the slow Q [...]."""
        return self._q(self.q_target, observations, actions).min(dim=0).values

    def min_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """min of the online Q [...]; actions are clamped to the box, outside it no data speaks."""
        return self.q_values(observations, actions.clamp(-1.0, 1.0)).min(dim=0).values

    def values(self, observations: Tensor) -> Tensor:
        """V [...] for normalized observations [..., D]."""
        flat = observations.reshape(-1, observations.shape[-1])
        return (self.v(flat)[0, :, 0] * self.scale + self.shift).view(observations.shape[:-1])

    def advantages(self, observations: Tensor, actions: Tensor) -> Tensor:
        """A = min Q - V, online networks of both, as the published code has it."""
        return self.min_q(observations, actions) - self.values(observations)

    def _q(self, net: EnsembleMLP, observations: Tensor, actions: Tensor) -> Tensor:
        inputs = torch.cat([observations, actions], dim=-1)
        flat = inputs.reshape(-1, inputs.shape[-1])
        return (net(flat)[..., 0] * self.scale + self.shift).view(2, *inputs.shape[:-1])


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2 for u = target - prediction (IQL, eq. 5), elementwise."""
    weight = torch.where(difference > 0, expectile, 1.0 - expectile)
    return weight * difference.square()


def value_gaps(critics: Critics, batch: Batch) -> Tensor:
    """How much more than V the smaller slow Q promises for the data's actions [B]; gradient into V only."""
    with torch.no_grad():
        target = critics.target_min_q(batch.observations, batch.actions)
    return target - critics.values(batch.observations)


def value_losses(critics: Critics, gaps: Tensor, expectile: float) -> Tensor:
    """V toward the expectile of what is that far above it [B]; all losses are of standardized values."""
    return expectile_loss(gaps / critics.scale, expectile)


def q_losses(critics: Critics, batch: Batch, next_values: Tensor, discount: float) -> Tensor:
    """Both Q toward r + discount (1 - terminal) next_value [B]; gradient into Q only.

    A timeout is no terminal: its successor keeps its value (the published code cuts it).
    """
    target = (batch.rewards + discount * (1.0 - batch.terminals) * next_values).detach()
    errors = (critics.q_values(batch.observations, batch.actions) - target) / critics.scale
    return errors.square().sum(dim=0)


def regression_losses(critics: Critics, batch: Batch, returns: Tensor) -> Tensor:
    """V and both Q toward given returns [B]: how training starts."""
    q_errors = (critics.q_values(batch.observations, batch.actions) - returns) / critics.scale
    return value_regression(critics, batch, returns) + q_errors.square().sum(dim=0)


def value_regression(critics: Critics, batch: Batch, returns: Tensor) -> Tensor:
    """V toward given returns [B]."""
    return ((critics.values(batch.observations) - returns) / critics.scale).square()


class CriticTrainer:
    """Fits Q and V in three phases of one loop: Monte-Carlo returns first, then bootstrapping.

    Bootstrapping from random networks takes 1 / polyak updates per step of the horizon until values have
    come through; regression on Monte-Carlo returns puts them in place at once.
    """

    def __init__(self, data: OfflineData, config: CriticsConfig, *, seed: int) -> None:
        self.data, self.config = data, config
        device = data.observations.device
        self.generator = torch.Generator(device).manual_seed(seed)
        init = torch.Generator().manual_seed(seed)
        self.critics = Critics(data.observation_dim, data.action_dim, config, generator=init).to(device)
        self.critics.scale.copy_(data.returns.std().clamp(min=MIN_SCALE))
        self.critics.shift.copy_(data.returns.mean())
        falling = straight(config.steps, config.final_learning_rate_share)
        group = Group([self.critics.q, self.critics.v], config.learning_rate, falling)
        slow = [(self.critics.q_target, self.critics.q)]
        self.updates = Updates({"critics": group}, slow, config.polyak)
        self.returns = data.returns.clone()  # refreshed under SARSA, where timeouts need a value

    @property
    def steps(self) -> int:
        """Taken so far."""
        return self.updates.groups["critics"].taken

    def phase(self) -> Hashable:
        """By what it learns, and whether the slow copy moves behind it."""
        if self._refreshes():
            return None
        return self.steps < self.config.monte_carlo_steps, self._following(self.steps + 1)

    def draws_from(self) -> list[torch.Generator]:
        return [self.generator]

    def step(self) -> Metrics:
        if self._refreshes():
            self._refresh_returns()
        index = torch.randint(
            len(self.data), (self.config.batch_size,), generator=self.generator, device=self.generator.device
        )
        metrics = self.updates.step({"critics": self._losses(self.data.rows(index), index)})
        if (rate := self._following(self.steps)) > 0:
            self.updates.follow(rate)
        return {"critics/loss": metrics["learner/critics_loss"]}

    def _losses(self, batch: Batch, index: Tensor) -> Tensor:
        if self.steps < self.config.monte_carlo_steps:
            return regression_losses(self.critics, batch, self.returns[index])
        return self._iql_losses(batch) if self.config.kind == "iql" else self._sarsa_losses(batch, index)

    def _iql_losses(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            next_values = self.critics.values(batch.next_observations)
        losses = value_losses(self.critics, value_gaps(self.critics, batch), self.config.expectile)
        return losses + q_losses(self.critics, batch, next_values, self.config.discount)

    def _sarsa_losses(self, batch: Batch, index: Tensor) -> Tensor:
        """Q by r + discount Q'(s', a'); V by returns. Behind a timeout no action is known: V stands in."""
        with torch.no_grad():
            next_q = self.critics.target_min_q(batch.next_observations, batch.next_actions)
            next_values = self.critics.values(batch.next_observations)
            next_values = torch.where(batch.followed > 0, next_q, next_values)
        losses = value_regression(self.critics, batch, self.returns[index])
        return losses + q_losses(self.critics, batch, next_values, self.config.discount)

    def _refreshes(self) -> bool:
        """Whether returns are due before the next step."""
        since = self.steps - self.config.monte_carlo_steps
        return self.config.kind == "sarsa" and since >= 0 and since % self.config.refresh_every == 0

    @torch.no_grad()
    def _refresh_returns(self) -> None:
        """Monte-Carlo returns with the value of the successor where only time ended an episode."""
        data = self.data
        last = torch.nonzero(data.episode_ends).squeeze(1)
        tails = self.critics.values(data.next_observations[last]) * (1.0 - data.terminals[last])
        offsets = np.append(data.starts.cpu().numpy(), len(data))
        rewards, bootstrap = data.rewards.cpu().numpy(), tails.cpu().numpy()
        returns = discounted_returns(rewards, offsets, self.config.discount, bootstrap)
        self.returns.copy_(torch.as_tensor(returns, dtype=torch.float32, device=data.rewards.device))

    def _following(self, steps: int) -> float:
        """How far the slow copy follows behind so many steps: all the way when bootstrapping begins."""
        if steps == self.config.monte_carlo_steps:
            return 1.0
        return 0.0 if steps % self.config.target_every else self.config.polyak

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        """How far values have come through, on evenly spread rows."""
        rows = torch.arange(
            0, len(self.data), max(1, len(self.data) // 8192), device=self.data.rewards.device
        )
        batch = self.data.rows(rows)
        values = self.critics.values(batch.observations)
        advantages = self.critics.advantages(batch.observations, batch.actions)
        pair = torch.stack([values, self.data.returns[rows]])
        return {
            "critics/value_mean": values.mean(),
            "critics/return_mean": pair[1].mean(),
            "critics/value_return_correlation": torch.corrcoef(pair)[0, 1].nan_to_num(),
            "critics/advantage_std": advantages.std(),
        }

    def finished(self) -> bool:
        return False

    def result(self) -> Critics:
        return self.critics

    def state_dict(self) -> dict[str, Any]:
        return {
            "critics": self.critics.state_dict(),
            "updates": self.updates.state_dict(),
            "generator": self.generator.get_state(),
            "returns": self.returns.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critics.load_state_dict(state["critics"])
        self.updates.load_state_dict(state["updates"])
        self.generator.set_state(state["generator"])
        self.returns.copy_(state["returns"])
