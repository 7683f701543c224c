"""The gate: a candidate replaces the current policy only on a paired difference of estimates."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unio4_lib.config import ImproveConfig


class Decision(NamedTuple):
    """One look at E candidates beside the E current policies; all fields [E]."""

    candidate: Tensor
    current: Tensor
    difference: Tensor
    stderr: Tensor
    accepted: Tensor  # bool


def decide(candidate: Tensor, current: Tensor, config: ImproveConfig, *, models: int = 1) -> Decision:
    """Compare estimates [E, S] made under the same conditions: column s of both rows is one pair.

    mean: the mean difference is positive (the paper). lower-bound: so is its one-sided lower confidence
    bound. margin: the gain exceeds a share of the current estimate's size. The published gate compares
    independent draws with the best of all earlier draws, which ratchets up by luck and then blocks gains.

    The columns come in equal blocks, one for each of ``models``. Starts within a model share its errors,
    so with two models or more the models are the sample: a gain that only some of them see is not sure,
    however many starts they see it from.
    """
    pairs = candidate - current
    sample = pairs if models == 1 else pairs.unflatten(1, (models, -1)).mean(dim=2)
    difference = pairs.mean(dim=1)
    stderr = sample.std(dim=1) / math.sqrt(sample.shape[1])
    if config.rule == "mean":
        threshold = torch.zeros_like(difference)
    elif config.rule == "margin":
        threshold = config.margin * current.mean(dim=1).abs()
    else:
        threshold = student_quantile(config.confidence, sample.shape[1] - 1) * stderr
    accepted = difference > threshold
    return Decision(candidate.mean(dim=1), current.mean(dim=1), difference, stderr, accepted)


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t: the value below which ``probability`` of the distribution lies."""
    low, high = 0.0, 1.0
    while _student_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, degrees) < probability else (low, middle)
    return high


def _student_cdf(t: float, degrees: int) -> float:
    """Student's t distribution function for t >= 0 and whole degrees (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    within = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + within / 2
