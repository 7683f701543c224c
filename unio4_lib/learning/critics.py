"""Q and V of the dataset: expectile regression (IQL) or SARSA with Monte-Carlo values.

Networks learn standardized values; ``scale`` and ``shift`` (fixed at the start from the Monte-Carlo
returns) turn them into the unit of the scaled rewards, so one learning rate suits every task.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unio4_lib.data.normalize import discounted_returns
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
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


def value_loss(critics: Critics, batch: Batch, expectile: float) -> Tensor:
    """V toward the expectile of min target Q at the data's actions; gradient into V only."""
    with torch.no_grad():
        target = critics.target_min_q(batch.observations, batch.actions)
    return expectile_loss((target - critics.values(batch.observations)) / critics.scale, expectile).mean()


def q_loss(critics: Critics, batch: Batch, next_values: Tensor, discount: float) -> Tensor:
    """Both Q toward r + discount (1 - terminal) next_value; gradient into Q only.

    A timeout is no terminal: its successor keeps its value (the published code cuts it).
    """
    target = (batch.rewards + discount * (1.0 - batch.terminals) * next_values).detach()
    errors = (critics.q_values(batch.observations, batch.actions) - target) / critics.scale
    return errors.square().mean(dim=-1).sum()


def regression_loss(critics: Critics, batch: Batch, returns: Tensor) -> Tensor:
    """V and both Q toward given returns [B]: how training starts, and V's rule under SARSA."""
    v_errors = (critics.values(batch.observations) - returns) / critics.scale
    q_errors = (critics.q_values(batch.observations, batch.actions) - returns) / critics.scale
    return v_errors.square().mean() + q_errors.square().mean(dim=-1).sum()


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
        parameters = [*self.critics.q.parameters(), *self.critics.v.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        self.returns = data.returns  # refreshed under SARSA, where timeouts need a value
        self.steps = 0

    def step(self) -> Metrics:
        config = self.config
        index = torch.randint(
            len(self.data), (config.batch_size,), generator=self.generator, device=self.data.rewards.device
        )
        batch = self.data.rows(index)
        warming = self.steps < config.monte_carlo_steps
        if warming:
            loss = regression_loss(self.critics, batch, self.returns[index])
        elif config.kind == "iql":
            loss = self._iql_loss(batch)
        else:
            loss = self._sarsa_loss(batch, index)
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        self._update_target(copy_all=self.steps == config.monte_carlo_steps)
        return {"critics/loss": loss.detach()}

    def _iql_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            next_values = self.critics.values(batch.next_observations)
        loss = value_loss(self.critics, batch, self.config.expectile)
        return loss + q_loss(self.critics, batch, next_values, self.config.discount)

    def _sarsa_loss(self, batch: Batch, index: Tensor) -> Tensor:
        """Q by r + discount Q'(s', a'); V by returns. Behind a timeout no action is known: V stands in."""
        if (self.steps - self.config.monte_carlo_steps) % self.config.refresh_every == 0:
            self._refresh_returns()
        following = (index + 1).clamp(max=len(self.data) - 1)
        with torch.no_grad():
            next_q = self.critics.target_min_q(batch.next_observations, self.data.actions[following])
            ended = self.data.episode_ends[index]
            next_values = torch.where(ended, self.critics.values(batch.next_observations), next_q)
        v_errors = (self.critics.values(batch.observations) - self.returns[index]) / self.critics.scale
        return v_errors.square().mean() + q_loss(self.critics, batch, next_values, self.config.discount)

    @torch.no_grad()
    def _refresh_returns(self) -> None:
        """Monte-Carlo returns with the value of the successor where only time ended an episode."""
        data = self.data
        last = torch.nonzero(data.episode_ends).squeeze(1)
        tails = self.critics.values(data.next_observations[last]) * (1.0 - data.terminals[last])
        offsets = np.append(data.starts.cpu().numpy(), len(data))
        rewards, bootstrap = data.rewards.cpu().numpy(), tails.cpu().numpy()
        returns = discounted_returns(rewards, offsets, self.config.discount, bootstrap)
        self.returns = torch.as_tensor(returns, dtype=torch.float32, device=data.rewards.device)

    def _set_learning_rate(self) -> None:
        remaining = max(0.0, 1.0 - self.steps / self.config.steps)
        floor = self.config.final_learning_rate_share
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * (floor + (1 - floor) * remaining)

    @torch.no_grad()
    def _update_target(self, *, copy_all: bool) -> None:
        if not copy_all and self.steps % self.config.target_every:
            return
        target: list[Tensor] = list(self.critics.q_target.parameters())
        online: list[Tensor] = list(self.critics.q.parameters())
        torch._foreach_lerp_(target, online, 1.0 if copy_all else self.config.polyak)

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
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "returns": self.returns,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critics.load_state_dict(state["critics"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.returns, self.steps = state["returns"], state["steps"]
