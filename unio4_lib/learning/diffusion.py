"""A diffusion model of whole rows (EDM: Karras et al., 2022): noise, denoiser, sampler, rows as vectors."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import UNKNOWN_RETURN
from unio4_lib.nets.ensemble import EnsembleLayerNorm, EnsembleLinear

SIGMA_LEAST, SIGMA_MOST, RHO = 0.002, 80.0, 7.0  # of noise levels when sampling
LOG_SIGMA_MEAN, LOG_SIGMA_STD = -1.2, 1.2  # of noise levels when training
SIGMA_DATA = 1.0  # rows are standardized
STIRRED, STIR_NOISE = (0.05, 50.0), 1.003  # noise levels where noise is added again, and how much of it
FREQUENCIES = 16  # of the noise level's features
STD_LEAST = 1e-3  # of a column

Denoise = Callable[[Tensor, float], Tensor]  # noised rows [B, D] and their noise level to clean rows


class Denoiser(nn.Module):
    """Clean rows from noised ones, the noise level and a class; the last class says that it is not known."""

    def __init__(
        self, columns: int, classes: int, width: int, depth: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> EnsembleLinear:
            return EnsembleLinear(1, inputs, outputs, generator=generator)

        self.unknown = classes
        self.rows, self.level = linear(columns, width), linear(2 * FREQUENCIES, width)
        self.classes = nn.Parameter(torch.randn(classes + 1, width, generator=generator))
        self.norms = nn.ModuleList(EnsembleLayerNorm(1, width) for _ in range(depth))
        self.layers = nn.ModuleList(linear(width, width) for _ in range(depth))
        self.output = linear(width, columns)

    def forward(self, rows: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Clean rows from rows [B, D] with noise of std [B].

        What the network sees, and what it has to say, is near 1 in size at every noise level.
        """
        total = (sigma.square() + SIGMA_DATA**2)[:, None]
        angles = 0.25 * sigma.log()[:, None] * torch.arange(1, FREQUENCIES + 1, device=rows.device)
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        hidden = self.rows(rows / total.sqrt()) + self.level(features) + self.classes[labels]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            hidden = hidden + layer(norm(hidden).relu())
        said = self.output(hidden)[0]
        clean: Tensor = SIGMA_DATA**2 / total * rows + sigma[:, None] * SIGMA_DATA / total.sqrt() * said
        return clean

    def losses(self, rows: Tensor, labels: Tensor, draws: torch.Generator) -> Tensor:
        """Of clean rows [B], each at a noise level of its own."""
        noise = torch.randn(len(rows), 1 + rows.shape[1], generator=draws, device=rows.device)
        sigma = (LOG_SIGMA_MEAN + LOG_SIGMA_STD * noise[:, 0]).exp()
        found = self(rows + sigma[:, None] * noise[:, 1:], sigma, labels)
        weight = (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square()
        return weight * (found - rows).square().mean(dim=1)

    def towards(self, labels: Tensor) -> Denoise:
        """For rows of these classes [B], all at one noise level."""

        def denoise(rows: Tensor, level: float) -> Tensor:
            clean: Tensor = self(rows, rows.new_full((len(rows),), level), labels)
            return clean

        return denoise


def guided(towards: Denoise, away: Denoise, guidance: float) -> Denoise:
    """Beyond the one, away from the other (classifier-free guidance)."""
    if guidance == 0:
        return towards
    return lambda rows, level: (1.0 + guidance) * towards(rows, level) - guidance * away(rows, level)


def noise_levels(steps: int) -> list[float]:
    """From most noise to none: one more than steps."""
    most, least = SIGMA_MOST ** (1 / RHO), SIGMA_LEAST ** (1 / RHO)
    return [(most + i / max(1, steps - 1) * (least - most)) ** RHO for i in range(steps)] + [0.0]


def heun(denoise: Denoise, noise: Tensor, steps: int, *, churn: float, draws: torch.Generator) -> Tensor:
    """Rows [B, D] from standard normal noise [B, D], by Heun's rule; ``churn`` is how much noise is added."""
    levels = noise_levels(steps)
    rows, share = noise * levels[0], min(churn / steps, math.sqrt(2.0) - 1.0)
    for level, following in pairwise(levels):
        if share > 0 and STIRRED[0] <= level <= STIRRED[1]:
            higher = level * (1.0 + share)
            fresh = torch.randn(rows.shape, generator=draws, device=rows.device)
            rows = rows + STIR_NOISE * math.sqrt(higher**2 - level**2) * fresh
            level = higher
        slope = (rows - denoise(rows, level)) / level
        moved = rows + (following - level) * slope
        if following > 0:
            slope = 0.5 * (slope + (moved - denoise(moved, following)) / following)
            moved = rows + (following - level) * slope
        rows = moved
    return rows


class RowVectors:
    """Rows as vectors of standardized columns: state, action, reward, next state, whether it ended there."""

    def __init__(self, data: OfflineData) -> None:
        self.sizes = [data.observation_dim, data.action_dim, 1, data.observation_dim, 1]
        parts = (data.observations, data.actions, data.rewards[:, None], data.next_observations)
        last = data.rewards.new_zeros(1)  # whether it ended is no quantity: it stays as it is
        self.mean = torch.cat([part.mean(dim=0) for part in parts] + [last])
        std = torch.cat([part.std(dim=0, correction=0) for part in parts] + [last + 1.0])
        self.std = std.clamp(min=STD_LEAST)

    def pack(self, rows: Batch) -> Tensor:
        """Vectors [B, columns] of rows."""
        reward, end = rows.rewards[:, None], rows.terminals[:, None]
        columns = torch.cat([rows.observations, rows.actions, reward, rows.next_observations, end], dim=1)
        return (columns - self.mean) / self.std

    def unpack(self, vectors: Tensor) -> Batch:
        """Rows of vectors; what followed them is not known."""
        parts = (vectors * self.std + self.mean).split(self.sizes, dim=1)
        observations, actions, rewards, following, ends = parts
        actions, none = actions.clamp(-1.0, 1.0), torch.zeros_like(rewards[:, 0])
        return Batch(
            observations,
            actions,
            rewards[:, 0],
            following,
            (ends[:, 0] > 0.5).float(),
            torch.full_like(none, UNKNOWN_RETURN),
            torch.zeros_like(actions),
            none,
            none,
        )
