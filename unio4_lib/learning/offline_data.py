"""The dataset as flat tensors on the device: minibatches are index gathers and nothing else."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unio4_lib.data.normalize import discounted_returns, observation_statistics, scale_rewards
from unio4_lib.data.transitions import Transitions
from unio4_lib.settings.model import PrepareConfig


class Batch(NamedTuple):
    """Rows of the dataset; leading axes as in the index that asked for them."""

    observations: Tensor  # [..., D] normalized
    actions: Tensor  # [..., A] in the unit box
    rewards: Tensor  # [...] scaled
    next_observations: Tensor  # [..., D] normalized
    terminals: Tensor  # [...] float: 1 where the task ended
    returns: Tensor  # [...] discounted return of the scaled rewards from here on
    next_actions: Tensor  # [..., A] what was done next
    followed: Tensor  # [...] float: 1 where something was, 0 where the episode ended or nothing is known
    recent: Tensor  # [...] float: 1 where drawn as what is done now, from the newest rows alone


@dataclass(frozen=True)
class OfflineData:
    """N rows of training data, normalized once. The last row of each episode is in ``episode_ends``."""

    observations: Tensor  # [N, D] normalized
    actions: Tensor  # [N, A] in the unit box
    rewards: Tensor  # [N] scaled for the critics
    environment_rewards: Tensor  # [N] as the environment gave them
    next_observations: Tensor  # [N, D] normalized
    terminals: Tensor  # [N] float: 1 where the task ended
    episode_ends: Tensor  # [N] bool: last row of an episode, for whatever reason
    returns: Tensor  # [N] discounted Monte-Carlo return of the scaled rewards
    starts: Tensor  # [episodes] rows where episodes start
    observation_mean: Tensor  # [D]
    observation_std: Tensor  # [D]
    action_low: Tensor  # [A]
    action_high: Tensor  # [A]

    @classmethod
    def build(
        cls, transitions: Transitions, config: PrepareConfig, *, discount: float, device: torch.device
    ) -> "OfflineData":
        """Normalize, scale and move a dataset to the device, once."""
        statistics = observation_statistics(transitions.observations, eps=config.std_floor)
        mean, std = statistics.mean, statistics.std
        if not config.normalize_observations:
            mean, std = np.zeros_like(mean), np.ones_like(std)
        scaled = scale_rewards(
            transitions, config.reward_scaling, number=config.reward_scale, discount=discount
        ).rewards
        returns = discounted_returns(scaled, transitions.episode_offsets, discount)
        low = np.asarray(transitions.info.action_low, np.float32)
        high = np.asarray(transitions.info.action_high, np.float32)
        ends = np.zeros(len(scaled), bool)
        ends[transitions.episode_offsets[1:] - 1] = True

        def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(np.array(values), dtype=dtype, device=device)

        return cls(
            observations=(tensor(transitions.observations) - tensor(mean)) / tensor(std),
            actions=2.0 * (tensor(transitions.actions) - tensor(low)) / tensor(high - low) - 1.0,
            rewards=tensor(scaled),
            environment_rewards=tensor(transitions.rewards),
            next_observations=(tensor(transitions.next_observations) - tensor(mean)) / tensor(std),
            terminals=tensor(transitions.terminals),
            episode_ends=tensor(ends, torch.bool),
            returns=tensor(returns),
            starts=tensor(transitions.episode_offsets[:-1], torch.int64),
            observation_mean=tensor(mean),
            observation_std=tensor(std),
            action_low=tensor(low),
            action_high=tensor(high),
        )

    def __len__(self) -> int:
        return self.observations.shape[0]

    @property
    def observation_dim(self) -> int:
        return self.observations.shape[1]

    @property
    def action_dim(self) -> int:
        return self.actions.shape[1]

    @property
    def reward_unit(self) -> float:
        """What one scaled reward is in environment rewards (exact unless scaling is "dynamic")."""
        return float(self.environment_rewards.abs().mean() / self.rewards.abs().mean().clamp(min=1e-8))

    def episode_of_rows(self) -> Tensor:
        """Which episode each row belongs to [N]."""
        rows = torch.arange(len(self), device=self.starts.device)
        return torch.searchsorted(self.starts, rows, right=True) - 1

    def episode_returns(self) -> tuple[Tensor, Tensor]:
        """Undiscounted return of each episode [episodes], and the episode of each row [N]."""
        episode = self.episode_of_rows()
        gains = self.environment_rewards.double()
        return gains.new_zeros(len(self.starts)).index_add_(0, episode, gains), episode

    def rows(self, index: Tensor) -> Batch:
        """The rows of an index of any shape."""
        return Batch(
            self.observations[index],
            self.actions[index],
            self.rewards[index],
            self.next_observations[index],
            self.terminals[index],
            self.returns[index],
            self.actions[(index + 1).clamp(max=len(self) - 1)],
            1.0 - self.episode_ends[index].float(),
            torch.zeros_like(self.rewards[index]),
        )

    def split_episodes(self, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Row indices (train, hold-out), split by whole episodes; both are never empty."""
        bounds = np.append(self.starts.cpu().numpy(), len(self))
        episodes = len(bounds) - 1
        device = self.observations.device
        if episodes == 1:  # nothing whole can be held out: take the tail
            cut = max(1, round((1 - fraction) * len(self)))
            rows = torch.arange(len(self), device=device)
            return rows[:cut], rows[cut:]
        count = min(max(1, round(fraction * episodes)), episodes - 1)
        chosen = np.random.default_rng(seed).permutation(episodes)[:count]
        held = np.repeat(np.isin(np.arange(episodes), chosen), np.diff(bounds))
        mask = torch.as_tensor(held, device=device)
        return torch.nonzero(~mask).squeeze(1), torch.nonzero(mask).squeeze(1)
