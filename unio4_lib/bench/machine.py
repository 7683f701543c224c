"""What this machine can do at most: the measure beside every figure."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from unio4_lib.bench.meter import Meter, Work

SIDE = 512  # of the matrices behind the rate of products
BLOCK = 1 << 24  # float32 numbers that are copied, far beyond any cache


@dataclass(frozen=True)
class Limits:
    """Rates of the bare machine."""

    products: float  # GFLOP/s of float32 products of matrices
    products_bf16: float  # the same in bfloat16
    memory: float  # GB/s read and written by a copy
    call: float  # seconds of one operator on a tensor of one number


def probes(device: torch.device) -> dict[str, Work]:
    """Work whose rates are the limits; units are operations, bytes and calls."""
    return {
        "products": _products(device, torch.float32),
        "products_bf16": _products(device, torch.bfloat16),
        "memory": _copies(device),
        "call": _calls(device),
    }


def limits_of(meter: Meter) -> Limits:
    """The limits, by the fastest round of each probe: whatever else ran only made it slower."""

    def best(name: str) -> float:
        return max(sample.units / sample.processor for sample in meter.samples[name])

    return Limits(
        best("products") / 1e9,
        best("products_bf16") / 1e9,
        best("memory") / 1e9,
        1.0 / best("call"),
    )


def settled(device: torch.device) -> Callable[[], None]:
    """Waits for what was launched; time spans nothing else on a GPU."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def _products(device: torch.device, dtype: torch.dtype) -> Work:
    left, right = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    out, wait = torch.empty_like(left), settled(device)

    def work() -> float:
        for _ in range(10):
            torch.mm(left, right, out=out)
        wait()
        return 10 * 2.0 * SIDE**3

    return work


def _copies(device: torch.device) -> Work:
    source = torch.zeros(BLOCK, device=device)
    target, wait = torch.empty_like(source), settled(device)

    def work() -> float:
        target.copy_(source)
        wait()
        return 2.0 * 4 * BLOCK

    return work


def _calls(device: torch.device) -> Work:
    number, wait = torch.ones((), device=device), settled(device)

    def work() -> float:
        for _ in range(1000):
            number.neg_()
        wait()
        return 1000.0

    return work
