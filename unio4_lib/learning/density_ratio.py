"""How much more often new rows come than old ones, learned by telling them apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from unio4_lib.learning.offline_data import Batch
from unio4_lib.nets.ensemble import EnsembleMLP

ROWS_AT_ONCE = 65_536  # of those that are weighed


class DensityRatio(nn.Module):
    """Log of the density of new states and actions over that of old ones.

    The loss is the bound of the Jensen-Shannon divergence in its stable form, logistic regression.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, hidden: tuple[int, ...], *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, observation_dim + action_dim, 1, hidden, generator=generator)

    def log_ratio(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of rows [B]."""
        found: Tensor = self.net(torch.cat([observations, actions], dim=-1))[0, :, 0]
        return found

    def losses(self, old: Batch, new: Batch) -> Tensor:
        """Of as many old as new rows [B]."""
        of_old = self.log_ratio(old.observations, old.actions)
        of_new = self.log_ratio(new.observations, new.actions)
        return functional.softplus(of_old) + functional.softplus(-of_new)

    @torch.no_grad()
    def of_all(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The log for any number of rows [N], some at a time."""
        parts = zip(observations.split(ROWS_AT_ONCE), actions.split(ROWS_AT_ONCE), strict=True)
        return torch.cat([self.log_ratio(*part) for part in parts])


def weights_of_rows(old: Tensor, new: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Of old and new rows from their log ratios: the ratios, 1 on average over old rows, to a power."""
    mean = old.logsumexp(dim=0) - torch.tensor(float(len(old)), device=old.device).log()
    return ((old - mean) * power).exp(), ((new - mean) * power).exp()
