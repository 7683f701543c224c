"""What lets a diffusion model make rows of another distribution: learned ratios that push on the way."""

import math

import torch
from torch import Tensor, nn

from unio4_lib.learning.diffusion import LOG_SIGMA_MEAN, LOG_SIGMA_STD, SIGMA_DATA, Denoise
from unio4_lib.nets.ensemble import EnsembleMLP

LARGEST_PUSH = 10.0  # of the released form, for each root of the columns


class Energies(nn.Module):
    """Minus the logs of how much likelier noised vectors are among wanted rows than among others [K, B]."""

    def __init__(
        self, kinds: int, columns: int, hidden: tuple[int, ...], *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.net = EnsembleMLP(kinds, columns + 1, 1, hidden, activation="silu", generator=generator)

    def forward(self, vectors: Tensor, sigma: Tensor) -> Tensor:
        """Of vectors [B, D], or of each kind's own [K, B, D], with noise of std [B]."""
        size = (sigma.square() + SIGMA_DATA**2).sqrt()[:, None]
        level = (0.25 * sigma.log()[:, None]).expand(*vectors.shape[:-1], 1)
        found: Tensor = self.net(torch.cat([vectors / size, level], dim=-1))[..., 0]
        return found

    def losses(self, wanted: Tensor, others: Tensor, draws: torch.Generator) -> Tensor:
        """Of telling wanted vectors [K, B, D] from M others each [K, B, M, D], all kinds together [B]."""
        rows = torch.cat([wanted[:, :, None], others], dim=2)
        kinds, count, choices, _ = rows.shape
        level = torch.randn(count, generator=draws, device=rows.device)
        sigma = (LOG_SIGMA_MEAN + LOG_SIGMA_STD * level).exp()
        noise = torch.randn(rows.shape, generator=draws, device=rows.device)
        noised = (rows + sigma[:, None, None] * noise).flatten(1, 2)
        energies = self(noised, sigma.repeat_interleave(choices)).view(kinds, count, choices)
        return -(-energies).log_softmax(dim=-1)[..., 0].sum(dim=0)


def pushed(denoise: Denoise, energies: nn.Module, weights: Tensor, *, released: bool) -> Denoise:
    """Down the energies; each moves a column by its weight there [K, D].

    The score of what is wanted is that of the model minus the gradient of the energy, and a clean guess is
    the row plus the score times the squared noise level. The released form has its first power and a bound.
    """

    def denoise_pushed(rows: Tensor, level: float) -> Tensor:
        with torch.enable_grad():
            seen = rows.detach().requires_grad_(True)
            found = energies(seen, seen.new_full((len(seen),), level)).sum(dim=1)
            slopes = [torch.autograd.grad(one, seen, retain_graph=True)[0] for one in found]
        push = sum((weight * slope for weight, slope in zip(weights, slopes, strict=True)), 0.0 * rows)
        if not released:
            return denoise(rows, level) - level**2 * push
        size, bound = push.norm(dim=1, keepdim=True), LARGEST_PUSH * math.sqrt(rows.shape[1])
        return denoise(rows, level) - level * push * (bound / size.clamp(min=bound))

    return denoise_pushed


def held(denoise: Denoise, clean: Tensor, columns: Tensor) -> Denoise:
    """With some columns [D] known: they go straight to what they are in clean vectors [B, D]."""
    return lambda rows, level: torch.where(columns, clean, denoise(rows, level))
