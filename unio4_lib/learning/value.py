"""State values for on-policy learning, in whatever unit the rewards have."""

import torch
from torch import Tensor, nn

from unio4_lib.nets.ensemble import Activation, EnsembleMLP
from unio4_lib.settings.model import Hidden

SCALE_RATE = 0.1  # weight of the newest batch in the running return statistics
SCALE_FLOOR = 1e-3  # smallest return std: constant returns must not blow up the targets


class ValueFunction(nn.Module):
    """V(s) = mean + std * net(s) with a linear output: negative values are values, too.

    ``mean`` and ``std`` follow the regression targets, so the network always learns standardized
    numbers and one learning rate suits every task. ``rescale`` moves them and corrects the output layer
    in the same moment, so that no prediction changes (PopArt, van Hasselt et al. 2016).
    """

    mean: Tensor
    std: Tensor
    scaled: Tensor

    def __init__(self, net: EnsembleMLP) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("scaled", torch.zeros((), dtype=torch.bool))

    @classmethod
    def create(
        cls,
        observation_dim: int,
        hidden: Hidden,
        *,
        activation: Activation = "relu",
        generator: torch.Generator | None = None,
    ) -> "ValueFunction":
        """An untrained function: V = 0 in standardized units up to small weights."""
        net = EnsembleMLP(
            1,
            observation_dim,
            1,
            hidden,
            activation=activation,
            init="orthogonal",
            hidden_gain=2.0**0.5,
            output_gain=0.1,
            generator=generator,
        )
        return cls(net)

    @classmethod
    def from_net(cls, net: EnsembleMLP, *, mean: float, std: float) -> "ValueFunction":
        """A trained network whose output o means the value mean + std * o in the unit of the rewards."""
        value = cls(net)
        value.mean.fill_(mean)
        value.std.fill_(std)
        value.scaled.fill_(True)
        return value

    def forward(self, observations: Tensor) -> Tensor:
        """Values [..., ] in reward units of normalized observations [B, D] -> [B]."""
        return self.mean + self.std * self.standardized(observations)

    def standardized(self, observations: Tensor) -> Tensor:
        """Network output [B] for normalized observations [B, D]."""
        return self.net(observations)[0, :, 0]

    def standardize(self, returns: Tensor) -> Tensor:
        """Returns in reward units as regression targets for ``standardized``."""
        return (returns - self.mean) / self.std

    @torch.no_grad()
    def rescale(self, returns: Tensor) -> None:
        """Follow the statistics of new targets, of any shape, without changing any prediction."""
        rate = torch.where(self.scaled, SCALE_RATE, 1.0)
        batch_mean = returns.mean()
        batch_square = (returns - batch_mean).square().mean()
        mean = torch.lerp(self.mean, batch_mean, rate)
        # Variance of a mixture: both variances plus what the distance of the means adds.
        gap = (batch_mean - self.mean).square() * rate * (1.0 - rate)
        variance = torch.lerp(self.std.square(), batch_square, rate) + gap
        std = variance.sqrt().clamp(min=SCALE_FLOOR)
        # Before the first batch there is nothing to preserve: the network then starts at the mean.
        shift = torch.where(self.scaled, (self.mean - mean) / std, 0.0)
        factor = torch.where(self.scaled, self.std / std, 1.0)
        self.net.output.weight.mul_(factor)
        self.net.output.bias.mul_(factor).add_(shift)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.scaled.fill_(True)
