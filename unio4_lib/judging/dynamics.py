"""A probabilistic ensemble of transition models with learned rewards and, where needed, terminations."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.snapshots import BestMembers
from unio4_lib.learning.updates import Group, Updates, straight
from unio4_lib.nets.ensemble import EnsembleMLP, select_members
from unio4_lib.nets.precision import product_precision
from unio4_lib.settings.model import DynamicsConfig

LOG_VARIANCE_MIN, LOG_VARIANCE_MAX = -12.0, 3.0  # of standardized targets
VARIANCE_WEIGHT = 0.1  # of the variance's likelihood beside the mean's squared error
RANGE_MARGIN = 0.25  # how far rollouts may leave the data's range, as a share of it
HOLDOUT_ROWS = 8192

Termination = Callable[[Tensor], Tensor]  # raw next observations [..., D] -> ended [...]


class Step(NamedTuple):
    """One model step of M members."""

    next_observations: Tensor  # [M, B, D] normalized
    rewards: Tensor  # [M, B] in environment units
    survival: Tensor  # [M, B] probability that the task goes on


class DynamicsModel(nn.Module):
    """M models of (next observation - observation, reward) with a termination head.

    The last output is the termination's logit; it is used where no rule of the task is given. Targets
    are standardized; means and variances are trained apart, because under the joint Gaussian likelihood
    the mean fits worse wherever the variance is large (ten times the squared error on Hopper).
    """

    target_mean: Tensor
    target_std: Tensor
    observation_mean: Tensor
    observation_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        members: int,
        observation_dim: int,
        action_dim: int,
        hidden: tuple[int, ...],
        *,
        termination: Termination | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.observation_dim, self.action_dim, self.hidden = observation_dim, action_dim, hidden
        self.termination = termination
        targets = observation_dim + 1
        self.net = EnsembleMLP(
            members,
            observation_dim + action_dim,
            2 * targets + 1,
            hidden,
            activation="silu",
            layer_norm=True,
            generator=generator,
        )
        for name, size in (("target", targets), ("observation", observation_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.register_buffer("low", torch.full((observation_dim,), -torch.inf))
        self.register_buffer("high", torch.full((observation_dim,), torch.inf))

    @property
    def members(self) -> int:
        return self.net.members

    def heads(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardized mean and log variance [M, B, D + 1], termination logit [M, B]."""
        out = self.net(torch.cat([observations, actions], dim=-1))
        targets = self.observation_dim + 1
        mean, log_variance, logit = out.split([targets, targets, 1], dim=-1)
        return mean, log_variance.clamp(LOG_VARIANCE_MIN, LOG_VARIANCE_MAX), logit[..., 0]

    def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
        """One step for rows [M, B, D], unit actions [M, B, A] and noise [M, B, D + 1].

        Block m of the rows is answered by member (m + turn) mod M. Who takes another turn at every step
        of a rollout does not let the errors of one member add up, which is what policies exploit.
        """
        if turn % self.members:
            inputs = (x if x is None else x.roll(turn, 0) for x in (observations, actions, noise))
            return Step(*(x.roll(-turn, 0) for x in self.step(*inputs)))  # type: ignore[arg-type]
        mean, log_variance, logit = self.heads(observations, actions.clamp(-1.0, 1.0))
        if noise is not None:
            mean = mean + torch.exp(0.5 * log_variance) * noise
        change = mean * self.target_std + self.target_mean
        # Models are only asked where they have learned: the data's range with a margin.
        following = (observations + change[..., :-1]).clamp(self.low, self.high)
        if self.termination is None:
            survival = torch.sigmoid(-logit)
        else:
            raw = following * self.observation_std + self.observation_mean
            survival = (~self.termination(raw)).to(following.dtype)
        return Step(following, change[..., -1], survival)

    def fit_scales(self, data: OfflineData, targets: Tensor) -> None:
        """Fix target statistics, observation units and the range of rollouts."""
        self.target_mean.copy_(targets.mean(dim=0))
        self.target_std.copy_(targets.std(dim=0).clamp(min=1e-6))
        self.observation_mean.copy_(data.observation_mean)
        self.observation_std.copy_(data.observation_std)
        lowest, highest = data.observations.amin(dim=0), data.observations.amax(dim=0)
        margin = RANGE_MARGIN * (highest - lowest)
        self.low.copy_(lowest - margin)
        self.high.copy_(highest + margin)

    def elites(self, members: list[int]) -> "DynamicsModel":
        """A new model with copies of the given members alone."""
        chosen = DynamicsModel(
            len(members), self.observation_dim, self.action_dim, self.hidden, termination=self.termination
        ).to(self.low.device)
        chosen.load_state_dict(select_members(self, members))
        return chosen.requires_grad_(False)

    def halves(self) -> tuple["DynamicsModel", "DynamicsModel"]:
        """Every other member and the rest: what was learned in one half can be judged by the other.

        Members are in the order of their hold-out error, so that both halves are equally good. One member
        alone has to do both.
        """
        members = list(range(self.members))
        return self.elites(members[::2]), self.elites(members[1::2] or members)


def dynamics_loss(
    mean: Tensor, log_variance: Tensor, logit: Tensor, targets: Tensor, terminals: Tensor
) -> tuple[Tensor, Metrics]:
    """Sum over members of squared error, the variance's likelihood at that error, and termination.

    mean, log_variance [M, B, D + 1]; logit, terminals [M, B]. The error inside the likelihood is
    detached: the variance describes the mean's errors and never excuses them.
    """
    errors = (mean - targets).square()
    likelihood = errors.detach() * torch.exp(-log_variance) + log_variance
    ending = functional.binary_cross_entropy_with_logits(logit, terminals, reduction="none")
    per_member = errors.mean(dim=(1, 2)) + VARIANCE_WEIGHT * likelihood.mean(dim=(1, 2)) + ending.mean(dim=1)
    return per_member.sum(), {"dynamics/squared_error": errors.detach().mean(dim=(1, 2))}


class DynamicsTrainer:
    """Fits all members in one batched step, each on minibatches of its own."""

    def __init__(
        self, data: OfflineData, config: DynamicsConfig, *, seed: int, termination: Termination | None
    ) -> None:
        self.data, self.config = data, config
        device = data.observations.device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.model = DynamicsModel(
            config.members,
            data.observation_dim,
            data.action_dim,
            config.hidden,
            termination=termination,
            generator=torch.Generator().manual_seed(seed),
        ).to(device)
        change = data.next_observations - data.observations
        targets = torch.cat([change, data.environment_rewards[:, None]], dim=1)
        self.model.fit_scales(data, targets)
        self.targets = (targets - self.model.target_mean) / self.model.target_std
        group = Group(
            [self.model.net], config.learning_rate, straight(config.steps), decay=config.weight_decay
        )
        self.updates = Updates({"net": group})
        self.train_rows, holdout = data.split_episodes(config.holdout_fraction, seed)
        self.holdout_rows = holdout[:: max(1, len(holdout) // HOLDOUT_ROWS)]
        self.best = BestMembers(self.model.net, config.patience)

    def step(self) -> Metrics:
        config, data = self.config, self.data
        shape = (config.members, config.batch_size)
        index = torch.randint(
            len(self.train_rows), shape, generator=self.generator, device=self.train_rows.device
        )
        rows = self.train_rows[index]
        with product_precision(config.precision, rows.device):
            heads = self.model.heads(data.observations[rows], data.actions[rows])
        loss, metrics = dynamics_loss(*heads, self.targets[rows], data.terminals[rows])
        self.updates.step({"net": loss})
        return metrics

    def phase(self) -> Hashable:
        """All steps are alike."""
        return "step"

    def draws_from(self) -> list[torch.Generator]:
        return [self.generator]

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        rows, data = self.holdout_rows, self.data
        mean, log_variance, logit = self.model.heads(data.observations[rows], data.actions[rows])
        errors = (mean - self.targets[rows]).square()
        squared_error = errors.mean(dim=(1, 2))
        self.best.update(squared_error)
        within = (errors < log_variance.exp()).float().mean(dim=(1, 2))
        ended = (logit > 0) == (data.terminals[rows] > 0.5)
        return {
            "dynamics/holdout_squared_error": squared_error,
            "dynamics/within_one_std": within,  # 0.683 where the variance is right
            "dynamics/termination_accuracy": ended.float().mean(dim=1),
        }

    def finished(self) -> bool:
        return self.best.exhausted()

    def result(self) -> DynamicsModel:
        """The elite members, each as it was at its lowest hold-out error."""
        self.best.restore(self.model.net)
        order = torch.argsort(self.best.losses)[: self.config.elites]
        return self.model.elites(order.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "updates": self.updates.state_dict(),
            "generator": self.generator.get_state(),
            "best": self.best.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates.load_state_dict(state["updates"])
        self.generator.set_state(state["generator"])
        self.best.load_state_dict(state["best"])
