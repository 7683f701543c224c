"""Weights of a dataset's rows, and rows drawn by them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unio4_lib.learning.critics import Critics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.settings.weightings import BY_RETURN, factors

LARGEST_LOG_WEIGHT = 4.6  # of an advantage: a weight of 100, so that no single row makes a policy
FEWEST_EPISODES = 5.0  # that a weighting by return must leave in effect: fewer are learned by heart
DOUBLINGS = 60  # of the temperature, in small steps, until they are left
CHUNK = 16_384  # rows per look of the critics


def row_weights(data: OfflineData, weighting: str, advantages: Tensor | None = None) -> Tensor:
    """Weights [N] of all rows, mean 1; ``advantages`` [N] where the weighting asks for them."""
    logs = torch.zeros(len(data), dtype=torch.float64, device=data.rewards.device)
    for kind, number in factors(weighting):
        if kind == BY_RETURN:
            logs += _by_return(data, number)
        else:
            assert advantages is not None, f"{weighting} needs critics"
            logs += _by_advantage(advantages, number)
    weights = torch.exp(logs - logs.max())
    return weights / weights.mean()


def promised_gain(data: OfflineData, weighting: str) -> float:
    """How much more than the mean episode the weighted one returned, as a share of the mean's size."""
    returns, _ = data.episode_returns()
    weights = row_weights(data, weighting)[data.starts]
    mean = float(returns.mean())
    return (float((weights * returns).sum() / weights.sum()) - mean) / max(abs(mean), 1e-9)


def _by_return(data: OfflineData, temperature: float) -> Tensor:
    """(R - R_max) / (T sd(R)) of each row's episode; where too few episodes would be left, T is raised."""
    returns, episode = data.episode_returns()
    spread = returns.std(correction=0)
    if float(spread) <= 1e-6 * max(1.0, float(returns.abs().max())):
        return torch.zeros(len(data), dtype=torch.float64, device=returns.device)
    distance = (returns - returns.max()) / spread
    fewest = min(FEWEST_EPISODES, 0.5 * len(returns))
    for _ in range(DOUBLINGS):
        if _effective_number(distance / temperature) >= fewest:
            break
        temperature *= 1.1
    return (distance / temperature)[episode]


def _effective_number(logs: Tensor) -> float:
    """How many equal weights have the same spread as these: (sum w)^2 / sum w^2."""
    weights = torch.exp(logs - logs.max())
    return float(weights.sum().square() / weights.square().sum())


def _by_advantage(advantages: Tensor, beta: float) -> Tensor:
    scale = advantages.double().std(correction=0).clamp(min=1e-12)
    return (beta * advantages.double() / scale).clamp(max=LARGEST_LOG_WEIGHT)


@torch.no_grad()
def data_advantages(critics: Critics, data: OfflineData) -> Tensor:
    """min slow Q - V [N] at the dataset's own actions."""
    rows = torch.arange(len(data), device=data.rewards.device)
    parts = []
    for part in rows.split(CHUNK):
        batch = data.rows(part)
        q = critics.target_min_q(batch.observations, batch.actions)
        parts.append(q - critics.values(batch.observations))
    return torch.cat(parts)


class RowSampler:
    """Draws rows for E members, each by weights of its own, from a subset of the dataset."""

    def __init__(self, rows: Tensor, weights: Sequence[Tensor]) -> None:
        self.rows = rows
        mass = torch.stack([part[rows] for part in weights]).double()  # [E, R]
        self.cumulative = torch.cumsum(mass / mass.sum(dim=1, keepdim=True), dim=1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows [E, count]."""
        shape = (len(self.cumulative), count)
        chance = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.rows.device)
        index = torch.searchsorted(self.cumulative, chance, right=True)
        return self.rows[index.clamp(max=len(self.rows) - 1)]
