"""Whether the models may judge: what clones return in them beside what the data recorded.

Of all policies only the recorded behavior has a known return. Like is compared with like: clones of a
weighting with the recorded return under that same weighting. A clone can be worse than what it was cloned
from without any fault of the models, so one weighting that fits is enough.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import row_weights


@dataclass(frozen=True)
class Trust:
    """The kind of clones that fits best."""

    weighting: str
    recorded: float
    modeled: float
    trusted: bool

    @property
    def ratio(self) -> float:
        return self.modeled / self.recorded if self.recorded != 0.0 else math.inf


def judge_models(
    data: OfflineData,
    weightings: list[str],
    sampled: Tensor,
    share: float,
    *,
    horizon: int,
) -> Trust | None:
    """Trust by the clones' estimates [E] with sampled actions; None where no recorded return is whole.

    Recorded actions were sampled, so the clones' are. Returns may be negative: what counts is the distance
    of the two as a share of the recorded one's size.
    """
    returns, known = whole_returns(data, horizon)
    if not known.any():
        return None
    found = []
    for weighting in dict.fromkeys(weightings):
        weights = row_weights(data, weighting)[data.starts][known]
        recorded = float((weights * returns[known]).sum() / weights.sum())
        members = [i for i, name in enumerate(weightings) if name == weighting]
        modeled = float(sampled[members].mean())
        found.append((weighting, recorded, modeled))
    weighting, recorded, modeled = min(found, key=lambda kind: _misfit(*kind[1:]))
    return Trust(weighting, recorded, modeled, _fits(recorded, modeled, share))


def _misfit(recorded: float, modeled: float) -> float:
    return abs(modeled - recorded) / max(abs(recorded), 1e-9)


def _fits(recorded: float, modeled: float, share: float) -> bool:
    """Between ``share`` and 1 / ``share`` of the recorded return, for positive ones; alike for others."""
    off = (modeled - recorded) / max(abs(recorded), 1e-9)
    return share - 1.0 <= off <= 1.0 / share - 1.0


def whole_returns(data: OfflineData, horizon: int) -> tuple[Tensor, Tensor]:
    """Return of each episode's first ``horizon`` steps [episodes], and whether it is known.

    An episode that was cut off before the horizon has no known return.
    """
    episode = data.episode_of_rows()
    time = torch.arange(len(data), device=data.starts.device) - data.starts[episode]
    gains = torch.where(time < horizon, data.environment_rewards, 0.0).double()
    returns = gains.new_zeros(len(data.starts)).index_add_(0, episode, gains)
    last = torch.cat([data.starts[1:], data.starts.new_tensor([len(data)])]) - 1
    lengths = last - data.starts + 1
    return returns, (data.terminals[last] > 0) | (lengths >= horizon)
