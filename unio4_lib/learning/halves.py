"""An ensemble on two cores: half of its members learn on a thread of their own."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from unio4_lib.learning.loop import Metrics

# Of some members, by a network of these alone: the sum of their losses, and metrics [members].
LossOf = Callable[[nn.Module, slice], tuple[Tensor, Metrics]]


class Halves:
    """Gradients of a network whose parameters all have the member axis first, each half's beside the other's.

    A half is a network whose parameters are windows upon the memory of the whole one, so that whatever moves
    that moves both. Members share nothing, and each has the numbers that it would have in one batch with all.
    There are two halves however many cores there are: on one they cost no more than the whole.
    """

    def __init__(self, net: nn.Module, members: int) -> None:
        middle = members // 2
        self._spans = slice(0, middle), slice(middle, members)
        self._nets = [_window(net, span) for span in self._spans]
        self._gradients = [torch.empty_like(part) for part in net.parameters()]
        self._beside = ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, 1))

    def gradients(self, loss_of: LossOf) -> tuple[list[Tensor], Metrics]:
        """Of all parameters, in memory that the next call uses again, and the metrics of all members."""
        other = self._beside.submit(self._half, 1, loss_of)
        try:
            first = self._half(0, loss_of)
        finally:
            second = other.result()
        return self._gradients, {name: torch.cat([first[name], second[name]]) for name in first}

    def _half(self, number: int, loss_of: LossOf) -> Metrics:
        net, span = self._nets[number], self._spans[number]
        loss, metrics = loss_of(net, span)
        for whole, part in zip(
            self._gradients, torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            whole[span].copy_(part)
        return metrics


def _window(net: nn.Module, span: slice) -> nn.Module:
    part = copy.deepcopy(net)
    for own, whole in zip(part.parameters(), net.parameters(), strict=True):
        own.data = whole.data[span]
    return part
