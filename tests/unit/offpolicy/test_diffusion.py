"""The diffusion model of rows: slow references, distributions that are known, guidance, rows as vectors."""

import math

import numpy as np
import pytest
import torch
from bandits import some_rows
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor

from unio4_lib.learning.diffusion import Denoise, Denoiser, RowVectors, guided, heun, noise_levels
from unio4_lib.learning.updates import Group, Updates


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean: float, std: float) -> Denoise:
    """The best guess where clean rows are of this distribution."""
    return lambda rows, level: (std**2 * rows + level**2 * mean) / (std**2 + level**2)


def two_gaussians(rows: Tensor, level: float) -> Tensor:
    """The same for N(±0.5, 0.5²), half of each."""
    spread = 0.25 + level**2
    left = torch.sigmoid(((rows - 0.5).square() - (rows + 0.5).square()) / (2 * spread))
    return left * gaussian(-0.5, 0.5)(rows, level) + (1 - left) * gaussian(0.5, 0.5)(rows, level)


def drawn(denoise: Denoise, rows: int = 20_000, steps: int = 32, churn: float = 0.0) -> Tensor:
    noise = torch.randn(rows, 1, generator=generator(), dtype=torch.float64)
    return heun(denoise, noise, steps, churn=churn, draws=generator(1))


def test_noise_levels_are_those_of_the_paper() -> None:
    levels = noise_levels(18)
    assert (len(levels), levels[0], levels[-1]) == (19, pytest.approx(80.0), 0.0)
    assert levels[17] == pytest.approx(0.002)
    middle = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[5] == pytest.approx(middle)


def test_heun_follows_the_known_path_of_a_gaussian() -> None:
    """Its error falls with the square of the steps."""
    noise = torch.randn(50, 1, generator=generator(), dtype=torch.float64)
    truth = 1.0 + 0.5 * (80.0 * noise - 1.0) / math.sqrt(0.25 + 80.0**2)
    errors = [
        float((heun(gaussian(1.0, 0.5), noise, steps, churn=0.0, draws=generator()) - truth).abs().max())
        for steps in (16, 32, 64)
    ]
    assert errors[2] < 1e-2
    assert errors[0] / errors[1] > 3.0 and errors[1] / errors[2] > 3.0


def test_noise_on_the_way_changes_rows_and_not_their_distribution() -> None:
    plain, stirred = drawn(gaussian(1.0, 0.5)), drawn(gaussian(1.0, 0.5), churn=10.0)
    assert not torch.equal(plain, stirred)
    assert float(stirred.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(stirred.std()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(stirred, drawn(gaussian(1.0, 0.5), churn=10.0))


def test_guidance_leads_away_from_the_other_class() -> None:
    """Two classes that overlap: the mass on the wrong side falls, and so does diversity."""
    found = [drawn(guided(gaussian(0.5, 0.5), two_gaussians, w)) for w in (0.0, 0.5, 1.0, 3.0)]
    wrong = [float((rows < 0).double().mean()) for rows in found]
    assert wrong == pytest.approx([0.163, 0.057, 0.010, 0.0], abs=0.01)
    assert float(found[0].std()) == pytest.approx(0.5, abs=0.02)
    assert float(found[3].std()) == pytest.approx(0.3, abs=0.03)


def test_no_guidance_is_the_class_alone() -> None:
    denoiser = Denoiser(3, 2, 8, 1, generator=generator())
    towards = denoiser.towards(torch.tensor([0, 1]))
    assert guided(towards, two_gaussians, 0.0) is towards


def test_the_loss_is_the_papers_row_by_row() -> None:
    denoiser = Denoiser(3, 2, 8, 2, generator=generator())
    rows, labels = torch.randn(5, 3, generator=generator(1)), torch.tensor([0, 1, 2, 0, 1])
    losses = denoiser.losses(rows, labels, generator(2)).detach()
    noise = torch.randn(5, 4, generator=generator(2))
    for row in range(5):
        sigma = math.exp(-1.2 + 1.2 * float(noise[row, 0]))
        noised = rows[row] + sigma * noise[row, 1:]
        clean = plain_denoiser(denoiser, noised, sigma, int(labels[row]))
        wanted = (sigma**2 + 1) / sigma**2 * float((clean - rows[row]).square().mean())
        assert float(losses[row]) == pytest.approx(wanted, rel=1e-4)


@torch.no_grad()
def plain_denoiser(denoiser: Denoiser, noised: Tensor, sigma: float, label: int) -> Tensor:
    def linear(layer: torch.nn.Module, inputs: Tensor) -> Tensor:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        return inputs @ weight[0] + bias[0, 0]

    angles = [math.log(sigma) / 4 * k for k in range(1, 17)]
    level = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
    hidden = linear(denoiser.rows, noised / math.sqrt(sigma**2 + 1)) + linear(denoiser.level, level)
    hidden = hidden + denoiser.classes[label]
    for layer in denoiser.layers:
        normed = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
        hidden = hidden + linear(layer, normed.clamp(min=0))
    said = linear(denoiser.output, hidden)
    return noised / (sigma**2 + 1) + sigma / math.sqrt(sigma**2 + 1) * said


def test_it_learns_two_classes_and_none() -> None:
    """Class means, and the mean of both where the class is not known."""
    draws, means = generator(3), torch.tensor([[1.0, -0.5], [-1.0, 1.5]])
    denoiser = Denoiser(2, 2, 64, 2, generator=generator())
    updates = Updates({"denoiser": Group([denoiser], 5e-3)})
    for _ in range(400):
        classes = torch.randint(2, (256,), generator=draws)
        rows = means[classes] + 0.3 * torch.randn(256, 2, generator=draws)
        labels = classes.masked_fill(torch.rand(256, generator=draws) < 0.2, denoiser.unknown)
        updates.step({"denoiser": denoiser.losses(rows, labels, draws)})
    with torch.no_grad():
        for label, mean in ((0, means[0]), (1, means[1]), (2, means.mean(dim=0))):
            noise, labels = torch.randn(1000, 2, generator=draws), torch.full((1000,), label)
            found = heun(denoiser.towards(labels), noise, 16, churn=0.0, draws=draws)
            torch.testing.assert_close(found.mean(dim=0), mean, atol=0.15, rtol=0.1)


def test_rows_come_back_from_vectors() -> None:
    data = make_data(point_mass_transitions(episodes=20))
    vectors, rows = RowVectors(data), some_rows(data)
    everything = vectors.pack(data.rows(torch.arange(len(data))))
    np.testing.assert_allclose(everything[:, :4].mean(dim=0), np.zeros(4), atol=1e-5)
    np.testing.assert_allclose(everything[:, :4].std(dim=0), np.ones(4), atol=1e-2)
    found = vectors.unpack(vectors.pack(rows))
    for name in ("observations", "actions", "rewards", "next_observations", "terminals"):
        torch.testing.assert_close(getattr(found, name), getattr(rows, name))
    assert bool(found.returns.isneginf().all()) and not found.followed.any()
    wild = vectors.unpack(5.0 * torch.randn(100, 5, generator=generator()))
    assert set(wild.terminals.tolist()) == {0.0, 1.0} and float(wild.actions.abs().max()) == 1.0
