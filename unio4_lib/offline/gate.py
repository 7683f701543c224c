"""The gate: a candidate replaces the current policy only on a paired difference of estimates."""

import math
from statistics import NormalDist
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


def decide(candidate: Tensor, current: Tensor, config: ImproveConfig) -> Decision:
    """Compare estimates [E, S] made under the same conditions: start s of both rows is one pair.

    mean: the mean difference is positive (the paper). lower-bound: so is its one-sided lower confidence
    bound. margin: the gain exceeds a share of the current estimate's size. The published gate compares
    independent draws with the best of all earlier draws, which ratchets up by luck and then blocks gains.
    """
    pairs = candidate - current
    difference = pairs.mean(dim=1)
    stderr = pairs.std(dim=1) / math.sqrt(pairs.shape[1])
    if config.rule == "mean":
        threshold = torch.zeros_like(difference)
    elif config.rule == "margin":
        threshold = config.margin * current.mean(dim=1).abs()
    else:
        threshold = student_quantile(config.confidence, pairs.shape[1] - 1) * stderr
    accepted = difference > threshold
    return Decision(candidate.mean(dim=1), current.mean(dim=1), difference, stderr, accepted)


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by the Cornish-Fisher expansion around the normal one.

    Good to three digits from 5 degrees of freedom on, more than a decision between noisy estimates needs.
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
