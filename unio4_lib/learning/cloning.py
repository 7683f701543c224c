"""Ensemble behavior cloning: E policies in one batched step, kept apart by a term with a gradient."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import RowSampler, row_weights
from unio4_lib.learning.snapshots import BestMembers
from unio4_lib.learning.updates import Group, Updates, straight
from unio4_lib.nets.policy import Gaussian, GaussianPolicy, PolicySpec
from unio4_lib.nets.precision import product_precision
from unio4_lib.settings.model import CloningConfig

HOLDOUT_ROWS = 8192  # rows per hold-out evaluation: the standard error of a mean over them is small


def paper_disagreement(log_probs: Tensor) -> Tensor:
    """The published term, [E, B] -> [E, B]: log pi_i - stopgrad(max_{j != i} log pi_j).

    Maximized with weight alpha its gradient is alpha times the cloning gradient: under Adam it changes
    nothing but the effective step size. It is here for fidelity.
    """
    members = log_probs.shape[0]
    if members == 1:
        return torch.zeros_like(log_probs)
    own = torch.eye(members, dtype=torch.bool, device=log_probs.device)[..., None]
    others = log_probs.detach().expand(members, -1, -1).masked_fill(own, -torch.inf)
    return log_probs - others.max(dim=1).values


def overlap(gaussian: Gaussian) -> Tensor:
    """Mean Bhattacharyya coefficient of each member with the others, [E] in (0, 1]; 1 is no diversity.

    For one dimension: sqrt(2 s t / (s^2 + t^2)) exp(-(m - n)^2 / (4 (s^2 + t^2))), averaged over the
    action dimensions so that the term neither vanishes nor explodes with their number. It is bounded:
    members that no longer overlap stop pushing, so a large alpha cannot drive them out of the data.
    """
    mean, log_std = gaussian
    members = mean.shape[0]
    if members == 1:
        return torch.ones(1, device=mean.device)
    variance = (2.0 * log_std).exp()
    sums = variance[:, None] + variance[None, :]
    logs = log_std[:, None] + log_std[None, :]
    distance = (mean[:, None] - mean[None, :]).square() / (4.0 * sums)
    coefficients = torch.exp(0.5 * (logs + torch.log(2.0 / sums)) - distance).mean(dim=(2, 3))
    return (coefficients.sum(dim=1) - 1.0) / (members - 1)  # a member's overlap with itself is 1


def cloning_loss(gaussian: Gaussian, actions: Tensor, config: CloningConfig) -> tuple[Tensor, Metrics]:
    """Sum over members of -mean log pi_i(a|s) plus the diversity term; actions [B, A] or [E, B, A].

    Gradients reach every member; with "repulsion" also through the peers, which "paper" detaches.
    """
    log_probs = gaussian.log_prob(actions)  # [E, B]
    loss = -log_probs.mean(dim=1).sum()
    if config.diversity == "repulsion" and config.alpha > 0:
        loss = loss + config.alpha * overlap(gaussian).sum()
    elif config.diversity == "paper" and config.alpha > 0:
        loss = loss - config.alpha * paper_disagreement(log_probs).mean(dim=1).sum()
    return loss, {"behavior/log_likelihood": log_probs.detach().mean(dim=1)}


class CloningTrainer:
    """Clones the dataset with E policies, member i by the i-th weighting of the config, round and round.

    Each member keeps its best weights on held-out episodes, judged under its own weighting.
    """

    def __init__(
        self,
        data: OfflineData,
        config: CloningConfig,
        *,
        seed: int,
        advantages: Tensor | None = None,
    ) -> None:
        self.data, self.config = data, config
        device = data.observations.device
        self.generator = torch.Generator(device).manual_seed(seed)
        spec = PolicySpec(
            config.members,
            data.observations.shape[1],
            data.actions.shape[1],
            config.hidden,
            config.activation,
            config.std,
        )
        self.policy = GaussianPolicy(spec, generator=torch.Generator().manual_seed(seed)).to(device)
        self.policy.set_scales(data.observation_mean, data.observation_std, data.action_low, data.action_high)
        # The last iterate of a constant step size swings by a factor of three in return on Hopper.
        group = Group([self.policy], config.learning_rate, straight(config.steps))
        self.updates = Updates({"policy": group})
        by_name = {name: row_weights(data, name, advantages) for name in dict.fromkeys(config.weightings)}
        weights = [by_name[name] for name in config.member_weightings()]
        train_rows, holdout = data.split_episodes(config.holdout_fraction, seed)
        self.sampler = RowSampler(train_rows, weights)
        held = holdout[:: max(1, len(holdout) // HOLDOUT_ROWS)]
        self.holdout = data.rows(held)
        shares = torch.stack([part[held] for part in weights])  # [E, H]
        # The largest is 1: beside the training rows' weights all of them may be beyond the smallest float.
        self.holdout_weights = (shares / shares.amax(dim=1, keepdim=True)).float()
        self.best = BestMembers(self.policy, config.patience)

    def step(self) -> Metrics:
        config = self.config
        rows = self.sampler.draw(config.batch_size, self.generator)
        with product_precision(config.precision, rows.device):
            gaussian = self.policy.distribution(self.data.observations[rows])
        loss, metrics = cloning_loss(gaussian, self.data.actions[rows], config)
        self.updates.step({"policy": loss})
        return metrics

    def phase(self) -> Hashable:
        """All steps are alike."""
        return "step"

    def draws_from(self) -> list[torch.Generator]:
        return [self.generator]

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        gaussian = self.policy.distribution(self.holdout.observations)
        weights = self.holdout_weights
        likelihood = (weights * gaussian.log_prob(self.holdout.actions)).sum(dim=1) / weights.sum(dim=1)
        self.best.update(-likelihood)
        spread = gaussian.mean.std(dim=0, correction=0).mean()
        return {
            "behavior/holdout_log_likelihood": likelihood,
            "behavior/overlap": overlap(gaussian).mean(),
            "behavior/action_spread": spread,
        }

    def finished(self) -> bool:
        return self.best.exhausted()

    def result(self) -> GaussianPolicy:
        """The ensemble, each member as it was at its best hold-out likelihood."""
        self.best.restore(self.policy)
        return self.policy

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "updates": self.updates.state_dict(),
            "generator": self.generator.get_state(),
            "best": self.best.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.updates.load_state_dict(state["updates"])
        self.generator.set_state(state["generator"])
        self.best.load_state_dict(state["best"])
