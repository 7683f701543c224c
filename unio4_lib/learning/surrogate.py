"""The one on-policy objective of both phases: advantages over time, and the clipped surrogate."""

from typing import NamedTuple

import torch
from torch import Tensor

from unio4_lib.nets.policy import Gaussian

ADVANTAGE_FLOOR = 1e-8  # smallest advantage std


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminals: Tensor,
    episode_ends: Tensor,
    discount: float,
    lam: float,
) -> Tensor:
    """Generalized advantage estimates (Schulman et al. 2016, eq. 16); all tensors [T, N].

    delta_t = r_t + discount * (1 - terminal_t) * V(s'_t) - V(s_t)
    A_t = delta_t + discount * lam * (1 - end_t) * A_{t+1}

    ``next_values`` are V of the true successors s', never of the first observation of a new episode.
    A terminal removes the successor's value; a timeout keeps it and only ends the chain, and so does the
    last row.
    """
    deltas = rewards + discount * next_values * ~terminals - values
    carry = discount * lam * (~episode_ends).to(deltas.dtype)
    advantages = torch.empty_like(deltas)
    ahead = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        ahead = torch.addcmul(deltas[t], carry[t], ahead)
        advantages[t] = ahead
    return advantages


def standardize_advantages(advantages: Tensor) -> Tensor:
    """Mean 0 and std 1 over the whole tensor (the whole batch, not a minibatch)."""
    centered = advantages - advantages.mean()
    return centered / centered.square().mean().sqrt().clamp(min=ADVANTAGE_FLOOR)


class Surrogate(NamedTuple):
    """What each of E policies makes of its minibatch; only ``loss`` carries gradients."""

    loss: Tensor  # [E]
    kl: Tensor  # [E] low-variance estimate of KL(old || new)
    clip_fraction: Tensor  # [E] share of ratios beyond the clip


def clipped_surrogate(
    gaussian: Gaussian,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    entropy: float,
) -> Surrogate:
    """-mean min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) - entropy * mean H (PPO, eq. 7).

    ratio = pi(a|s) / pi_old(a|s). gaussian: distributions of E policies, fields [E, B, A]; actions
    [E, B, A] as sampled, not clamped; old_log_probs, advantages [E, B]; without the leading axis all
    policies share them. The reference code of Uni-O4 evaluates the density at the clamped action, which
    biases the ratio at the border; we do not. (Its paper prints eq. 7 upside down; its code does not.)
    """
    log_ratio = gaussian.log_prob(actions) - old_log_probs
    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
    loss = -gain.mean(dim=1)
    if entropy > 0.0:
        loss = loss - entropy * gaussian.entropy().mean(dim=1)
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).mean(dim=1)
        beyond = ((ratio - 1.0).abs() > clip).to(ratio.dtype).mean(dim=1)
    return Surrogate(loss, kl, beyond)
