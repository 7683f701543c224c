"""How likely actions are in a state, by a variational autoencoder that has seen those of the data."""

import math

import torch
from torch import Tensor, nn

from unio4_lib.nets.ensemble import EnsembleMLP

LOG_STD_MIN, LOG_STD_MAX = -4.0, 15.0  # of codes


class ActionDensity(nn.Module):
    """Codes of actions in states, and actions from them; the worse it does, the less likely is the action."""

    def __init__(
        self, observation_dim: int, action_dim: int, hidden: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.codes = 2 * action_dim
        self.encoder = EnsembleMLP(
            1, observation_dim + action_dim, 2 * self.codes, hidden, generator=generator
        )
        self.decoder = EnsembleMLP(1, observation_dim + self.codes, action_dim, hidden, generator=generator)

    def encode(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std [B, codes] of the codes of actions [B, A]."""
        mean, log_std = self.encoder(torch.cat([observations, actions], dim=-1))[0].chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def decode(self, observations: Tensor, codes: Tensor) -> Tensor:
        """Unit actions [B, A] of codes [B, codes]."""
        return torch.tanh(self.decoder(torch.cat([observations, codes], dim=-1))[0])

    def losses(self, observations: Tensor, actions: Tensor, noise: Tensor, divergence: float) -> Tensor:
        """Minus a lower bound of the log density [B], up to a factor and a constant; noise is [B, codes].

        The squared error of an action, and how far its codes are from normal ones, both averaged over
        dimensions.
        """
        mean, log_std = self.encode(observations, actions)
        found = self.decode(observations, mean + log_std.exp() * noise)
        apart = 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0) - log_std
        return (found - actions).square().mean(dim=-1) + divergence * apart.mean(dim=-1)

    def bound(self, observations: Tensor, actions: Tensor, noise: Tensor, divergence: float) -> Tensor:
        """As ``losses`` by several codes [L, B, codes], the nearer to minus the log density the more.

        ``losses`` are those of actions around what their code says, with a variance of a quarter of
        ``divergence``: each code weighs by how likely it is, over how likely it was to be drawn (Burda et
        al., ICLR 2016).
        """
        mean, log_std = self.encode(observations, actions)
        codes, variance = mean + log_std.exp() * noise, divergence / 4.0
        states = observations.expand(len(noise), *observations.shape)
        found = self.decode(states.flatten(0, 1), codes.flatten(0, 1)).view(len(noise), *actions.shape)
        likely = -(found - actions).square().sum(dim=-1) / (2.0 * variance)
        drawn = -0.5 * noise.square().sum(dim=-1) - log_std.sum(dim=-1)
        logs = likely - 0.5 * codes.square().sum(dim=-1) - drawn
        unit = 2.0 * variance / actions.shape[-1]
        return -unit * (logs.logsumexp(dim=0) - math.log(len(noise)))
