"""An ensemble that learns in two halves is what it would be in one piece, and no half waits for the other."""

from threading import Barrier, BrokenBarrierError

import pytest
import torch
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor, nn

from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.learning.halves import Halves
from unio4_lib.learning.loop import Metrics
from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.settings.model import DynamicsConfig

DATA = make_data(point_mass_transitions(episodes=20))
PATIENCE = 20.0  # seconds


def net_of(members: int) -> EnsembleMLP:
    return EnsembleMLP(members, 3, 2, (16,), layer_norm=True, generator=torch.Generator().manual_seed(0))


def squares(inputs: Tensor, net: nn.Module, members: slice) -> tuple[Tensor, Metrics]:
    found = net(inputs[members]).square()
    return found.sum(), {"each": found.detach().sum(dim=(1, 2))}


@pytest.mark.parametrize("members", [2, 3, 4, 7])
def test_gradients_are_those_of_one_batch(members: int) -> None:
    net, inputs = net_of(members), torch.randn(members, 16, 3)
    halves = Halves(net, members)
    for shift in (0.0, 0.5):  # the halves see what moves the whole
        with torch.no_grad():
            for part in net.parameters():
                part.add_(shift)
        expected, said = squares(inputs, net, slice(None))
        plain = torch.autograd.grad(expected, list(net.parameters()))
        found, each = halves.gradients(lambda *of: squares(inputs, *of))
        assert torch.equal(each["each"], said["each"])
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("members", [2, 3, 4])
def test_models_are_the_same_to_the_bit(members: int) -> None:
    """At the widths and rows of the default."""
    config = DynamicsConfig(members=members, elites=members, steps=40)
    split, whole = (DynamicsTrainer(DATA, config, seed=3, termination=None) for _ in range(2))
    assert split.halves is not None
    whole.halves = None  # as on a GPU
    for step in range(12):
        said, expected = split.step(), whole.step()
        assert said.keys() == expected.keys()
        assert all(torch.equal(said[name], expected[name]) for name in said), step
    pairs = zip(split.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_one_model_has_no_halves() -> None:
    config = DynamicsConfig(members=1, elites=1, hidden=(8,), steps=2)
    trainer = DynamicsTrainer(DATA, config, seed=0, termination=None)
    assert trainer.halves is None
    assert trainer.step()["dynamics/squared_error"].shape == (1,)


def test_halves_are_at_work_at_the_same_time() -> None:
    both = Barrier(2)

    def together(net: nn.Module, members: slice) -> tuple[Tensor, Metrics]:
        both.wait(PATIENCE)  # breaks where one half comes after the other
        assert torch.get_num_threads() == 1
        return squares(torch.ones(4, 2, 3), net, members)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Halves(net_of(4), 4).gradients(together)
    finally:
        torch.set_num_threads(before)
    assert not both.broken


@pytest.mark.parametrize("first", [0, 2])
def test_what_fails_in_a_half_fails(first: int) -> None:
    def failing(net: nn.Module, members: slice) -> tuple[Tensor, Metrics]:
        if members.start == first:
            raise BrokenBarrierError
        return squares(torch.ones(4, 2, 3), net, members)

    with pytest.raises(BrokenBarrierError):
        Halves(net_of(4), 4).gradients(failing)
