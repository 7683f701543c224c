"""N action values of one policy, and their slow copies."""

import copy

import torch
from torch import Tensor, nn

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.nets.ensemble import EnsembleMLP

MIN_SCALE = 1e-3  # constant returns must not blow up the targets


class QEnsemble(nn.Module):
    """Q [N, B] for normalized observations [B, D] and unit actions [B, A], in the unit of scaled rewards.

    Networks learn standardized values: ``scale`` and ``shift`` are those of the data's returns.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        data: OfflineData,
        members: int,
        hidden: tuple[int, ...],
        *,
        layer_norm: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inputs = data.observation_dim + data.action_dim
        self.q = EnsembleMLP(members, inputs, 1, hidden, layer_norm=layer_norm, generator=generator)
        self.slow = copy.deepcopy(self.q).requires_grad_(False)
        self.register_buffer("scale", data.returns.std().clamp(min=MIN_SCALE).cpu())
        self.register_buffer("shift", data.returns.mean().cpu())

    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of the networks that learn."""
        return self._values(self.q, observations, actions)

    def slow_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of their slow copies."""
        return self._values(self.slow, observations, actions)

    def errors(self, batch: Batch, targets: Tensor) -> Tensor:
        """Squared distances [N, B] from targets [B], in standard deviations of the data's returns."""
        return ((self.values(batch.observations, batch.actions) - targets) / self.scale).square()

    def _values(self, net: EnsembleMLP, observations: Tensor, actions: Tensor) -> Tensor:
        return net(torch.cat([observations, actions], dim=-1))[..., 0] * self.scale + self.shift
