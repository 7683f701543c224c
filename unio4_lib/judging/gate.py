"""The gate: a candidate replaces the current policy only on a paired difference of estimates."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unio4_lib.settings.model import ImproveConfig
from unio4_lib.student import student_quantile


class Decision(NamedTuple):
    """One look at E candidates beside the E current policies; W ways of acting (mean action, sampled)."""

    candidate: Tensor  # [W, E]
    current: Tensor  # [W, E]
    difference: Tensor  # [E] mean over starts and ways
    stderr: Tensor  # [E]
    refusals: list[str | None]  # [E] the test that refused; None: accepted

    @property
    def accepted(self) -> Tensor:
        """Bool [E]."""
        return torch.tensor([refusal is None for refusal in self.refusals], device=self.difference.device)


def decide(candidate: Tensor, current: Tensor, config: ImproveConfig) -> Decision:
    """Compare estimates [W, E, S] made under the same conditions: start s of both is one pair.

    Accepted is what passes three tests, in this order. Not sure: the one-sided lower confidence bound of
    the gain is not above zero. Too small: the gain is below a share (``margin``) of the current estimate,
    where models are not to be believed however many starts agree. Worse: the gain of the one way of acting
    is paid for by the other, by more than that share. With confidence 0.5 and margin 0 a higher mean is
    all that is asked for, which is the paper's rule; its code compares independent draws with the best of
    all earlier draws, which ratchets up by luck and then blocks gains.
    """
    pairs = candidate - current
    gains = pairs.mean(dim=0)  # [E, S]
    difference = gains.mean(dim=1)
    stderr = gains.std(dim=1) / math.sqrt(gains.shape[1])
    sure = difference > student_quantile(config.confidence, gains.shape[1] - 1) * stderr
    least = config.margin * current.mean(dim=2).abs()  # [W, E]
    enough = difference >= least.mean(dim=0)
    kept = (pairs.mean(dim=2) >= -least).all(dim=0)
    refusals = [_refusal(*tests) for tests in zip(sure.tolist(), enough.tolist(), kept.tolist(), strict=True)]
    return Decision(candidate.mean(dim=2), current.mean(dim=2), difference, stderr, refusals)


def _refusal(sure: bool, enough: bool, kept: bool) -> str | None:
    if not sure:
        return "not sure"
    if not enough:
        return "too small"
    return None if kept else "worse in one way of acting"
