"""What a stage knows that is worth a picture, found out in at most about a second.

Algorithms never import this; stages call it with what they have in hand and write ``facts.json``.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.cloning import overlap
from unio4_lib.learning.critics import Critics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.unio4.fact_types import (
    BehaviorFacts,
    Bin,
    CloneFit,
    CriticsFacts,
    DynamicsFacts,
    Point,
    Ranking,
    StepErrors,
)
from unio4_lib.nets.policy import Gaussian, GaussianPolicy
from unio4_lib.report.aggregate import rank_correlation
from unio4_lib.report.data_facts import MOST_ROWS, histogram

CALIBRATION_BINS = 12
LEVELS = (0.1, 0.25, 0.5, 0.683, 0.8, 0.9, 0.95)  # of central intervals
MODEL_STEPS = 50
MODEL_STARTS = 256


def _thin(rows: Tensor) -> Tensor:
    """At most ``MOST_ROWS`` of the given row indices, evenly spread."""
    return rows[:: max(1, len(rows) // MOST_ROWS)]


@torch.no_grad()
def behavior_facts(policy: GaussianPolicy, data: OfflineData, holdout: Tensor) -> BehaviorFacts:
    """Likelihood of each member on held-out rows [H], and how far members are from each other."""
    rows = _thin(holdout)
    gaussian = policy.distribution(data.observations[rows])
    log_probs = gaussian.log_prob(data.actions[rows])
    stderr = log_probs.std(dim=1, correction=0) / len(rows) ** 0.5
    spread = gaussian.log_std.exp().mean(dim=(1, 2))
    members = zip(log_probs.mean(dim=1).tolist(), stderr.tolist(), spread.tolist(), strict=True)
    return BehaviorFacts(
        holdout_rows=len(rows),
        members=[CloneFit(log_likelihood=value, stderr=error, std=std) for value, error, std in members],
        divergence=pairwise_divergence(gaussian).tolist(),
        overlap=overlap(gaussian).tolist(),
    )


def pairwise_divergence(gaussian: Gaussian) -> Tensor:
    """Mean over rows of KL(member i || member j), [E, E]; summed over action dimensions."""
    mean, log_std = gaussian
    variance = (2.0 * log_std).exp()
    distance = (mean[:, None] - mean[None, :]).square()
    ratio = (variance[:, None] + distance) / (2.0 * variance[None, :])
    return (log_std[None, :] - log_std[:, None] + ratio - 0.5).sum(-1).mean(-1)


@torch.no_grad()
def critics_facts(critics: Critics, data: OfflineData) -> CriticsFacts:
    """V against the discounted returns that the data went on to have, in environment units.

    Bins hold equally many rows each, in the order of V. Returns of episodes that time ended are cut
    short, so V may rightly lie above them.
    """
    rows = _thin(torch.arange(len(data), device=data.rewards.device))
    unit = data.reward_unit
    values = critics.values(data.observations[rows]) * unit
    advantages = critics.advantages(data.observations[rows], data.actions[rows]) * unit
    returns = data.returns[rows] * unit
    order = torch.argsort(values)
    bins = []
    for part in torch.tensor_split(order, min(CALIBRATION_BINS, len(order))):
        spread = float(returns[part].std(correction=0))
        bins.append(
            Bin(
                value=float(values[part].mean()),
                returned=float(returns[part].mean()),
                stderr=spread / len(part) ** 0.5,
                std=spread,
                rows=len(part),
            )
        )
    pair = torch.stack([values, returns])
    return CriticsFacts(
        bins=bins,
        correlation=float(torch.corrcoef(pair)[0, 1].nan_to_num()),
        bias=float((values - returns).mean()),
        advantage_histogram=histogram(advantages.cpu().numpy()),
        positive_advantages=float((advantages > 0).float().mean()),
    )


@torch.no_grad()
def dynamics_facts(
    model: DynamicsModel, data: OfflineData, holdout: Tensor, *, steps: int = MODEL_STEPS, seed: int = 0
) -> DynamicsFacts:
    """Error of one step and of many, and whether the models know it, on held-out rows [H]."""
    rows = _thin(holdout)
    mean, log_variance, _ = model.heads(data.observations[rows], data.actions[rows])
    change = data.next_observations[rows] - data.observations[rows]
    targets = torch.cat([change, data.environment_rewards[rows, None]], dim=1)
    errors = (mean - (targets - model.target_mean) / model.target_std).abs()
    relative = errors / torch.exp(0.5 * log_variance)
    levels = torch.tensor(LEVELS, device=errors.device)
    borders = torch.special.ndtri(0.5 + 0.5 * levels)
    within = (relative[..., None] < borders).float().mean(dim=(0, 1, 2))
    return DynamicsFacts(
        holdout_rows=len(rows),
        members=errors.square().mean(dim=(1, 2)).tolist(),
        dimensions=errors.square().mean(dim=(0, 1)).tolist(),
        calibration=[[level, share] for level, share in zip(LEVELS, within.tolist(), strict=True)],
        k_step=k_step_error(model, data, holdout, steps=steps, seed=seed),
    )


@torch.no_grad()
def k_step_error(
    model: DynamicsModel, data: OfflineData, holdout: Tensor, *, steps: int, seed: int
) -> StepErrors | None:
    """Error of the models after k steps with the recorded actions, and of saying that nothing changes.

    Root of the mean squared distance per dimension, in standard deviations of the dataset; every
    held-out row is a start from which the episode goes on long enough, ``MODEL_STARTS`` are drawn.
    None where no episode does, after halving the number of steps down to one.
    """
    starts = _starts(data, holdout, steps)
    while len(starts) == 0 and steps > 1:
        steps //= 2
        starts = _starts(data, holdout, steps)
    if len(starts) == 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    chosen = starts[torch.randperm(len(starts), generator=generator)[:MODEL_STARTS].to(starts.device)]
    first = data.observations[chosen]
    state = first.expand(model.members, *first.shape)
    model_errors, still_errors = [], []
    for k in range(steps):
        actions = data.actions[chosen + k].expand(model.members, -1, -1)
        state = model.step(state, actions, None).next_observations
        truth = data.next_observations[chosen + k]
        model_errors.append((state - truth).square().mean(dim=(1, 2)).sqrt())
        still_errors.append((first - truth).square().mean().sqrt())
    return StepErrors(
        starts=len(chosen),
        steps=list(range(1, steps + 1)),
        members=torch.stack(model_errors, dim=1).tolist(),
        no_change=torch.stack(still_errors).tolist(),
    )


def _starts(data: OfflineData, rows: Tensor, steps: int) -> Tensor:
    """The rows whose episode has at least ``steps`` rows from there on."""
    ends = torch.nonzero(data.episode_ends).squeeze(1)
    last = ends[torch.searchsorted(ends, rows)]
    return rows[rows + steps - 1 <= last]


def ope_facts(
    labels: Sequence[str],
    estimates: Sequence[float],
    scorer: Callable[[int], tuple[float, float]],
) -> Ranking:
    """Estimates of policies beside their true (mean return, standard error), and how well they rank them."""
    truth = [scorer(index) for index in range(len(labels))]
    points = [
        Point(label=label, estimate=float(estimate), truth=float(mean), stderr=float(stderr))
        for label, estimate, (mean, stderr) in zip(labels, estimates, truth, strict=True)
    ]
    found = rank_correlation(list(estimates), [mean for mean, _ in truth])
    return Ranking(points=points, rank_correlation=found)
