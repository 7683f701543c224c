"""Off-policy evaluation: what a policy would return, judged by the learned model alone.

All estimators roll every policy through the same models from the same start states with the same noise
(common random numbers), so that the difference of two policies is far less noisy than either estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.offline.critics import Critics
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.dynamics import DynamicsModel

COMPACT_EVERY = 25  # steps between looks at which rollouts are still alive
ALIVE = 1e-3  # below this survival a rollout counts for nothing

Observe = Callable[["ModelStep"], None]


@dataclass(frozen=True)
class ModelStep:
    """What estimators see of one step; P policies, M models, K starts of each model."""

    time: int
    kept: Tensor  # [P, M, K'] indices into the K starts of the rollouts that are still computed
    survival: Tensor  # [P, M, K'] probability of having lived until this step
    observations: Tensor  # [P, M, K', D] normalized
    actions: Tensor  # [P, M, K', A] unit
    rewards: Tensor  # [P, M, K'] in environment units


@torch.no_grad()
def model_rollouts(
    policies: GaussianPolicy,
    model: DynamicsModel,
    starts: Tensor,
    horizon: int,
    observe: Observe,
    generator: torch.Generator | None,
    exploration: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Roll P policies from starts [M, K, D], start k of model m in model m throughout.

    Without a generator the models' means are followed, else their noise is drawn from it, the same for
    every policy. Actions are the policies' means, or sampled with draws of ``exploration``. Rollouts that
    died are dropped from the computation. Returns what is left at the horizon: kept [P, M, K'],
    survival [P, M, K'], observations [P, M, K', D].
    """
    count, (members, width, dim) = policies.spec.members, starts.shape
    observations = starts.expand(count, members, width, dim)
    survival = torch.ones(count, members, width, device=starts.device)
    kept = torch.arange(width, device=starts.device).expand(count, members, width)
    for time in range(horizon):
        if time % COMPACT_EVERY == 0 and time > 0:
            observations, survival, kept = _compact(observations, survival, kept)
            if observations.shape[2] == 0:
                break
        rows = observations.shape[2]
        flat = observations.reshape(count, members * rows, dim)
        actions = _actions(policies, flat, exploration).view(count, members, rows, -1)
        noise = None
        if generator is not None:
            drawn = torch.randn(members, width, dim + 1, generator=generator, device=starts.device)
            index = kept.unsqueeze(-1).expand(-1, -1, -1, dim + 1)
            noise = drawn.expand(count, -1, -1, -1).gather(2, index)
        by_model = None if noise is None else _by_model(noise)
        step = model.step(_by_model(observations), _by_model(actions), by_model)
        rewards = step.rewards.view(members, count, rows).transpose(0, 1)
        observe(ModelStep(time, kept, survival, observations, actions, rewards))
        survival = survival * step.survival.view(members, count, rows).transpose(0, 1)
        observations = step.next_observations.view(members, count, rows, dim).transpose(0, 1)
    return kept, survival, observations


def _actions(policies: GaussianPolicy, observations: Tensor, exploration: torch.Generator | None) -> Tensor:
    """Unit actions [P, B, A]; sampled ones are clamped to the box, as the environment would."""
    gaussian = policies.distribution(observations)
    if exploration is None:
        return gaussian.mean
    noise = torch.randn(gaussian.mean.shape, generator=exploration, device=gaussian.mean.device)
    return gaussian.sample(noise).clamp(-1.0, 1.0)


def _by_model(values: Tensor) -> Tensor:
    """[P, M, K, X] -> [M, P * K, X], as the models want it."""
    count, members, rows, width = values.shape
    return values.transpose(0, 1).reshape(members, count * rows, width)


def _compact(observations: Tensor, survival: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep as many columns as the fullest (policy, model) cell has living rollouts."""
    alive = survival > ALIVE
    width = int(alive.sum(dim=2).max())
    if width == survival.shape[2]:
        return observations, survival, kept
    order = torch.argsort((~alive).to(torch.int8), dim=2, stable=True)[..., :width]
    survival, kept = survival.gather(2, order), kept.gather(2, order)
    survival = torch.where(survival > ALIVE, survival, 0.0)
    index = order.unsqueeze(-1).expand(-1, -1, -1, observations.shape[3])
    return observations.gather(2, index), survival, kept


@dataclass(frozen=True)
class Calibration:
    """What the data's own behavior returned, and what its clones return in the models.

    Both are mean discounted returns over the horizon, from the same first states. Of all policies the
    behavior alone has a known return: by how much the models miss it is the least that they can be wrong by.
    """

    recorded: float
    modeled: float

    @property
    def error(self) -> float:
        return abs(self.modeled - self.recorded)


class PolicyEvaluator:
    """Estimates for many policies at once, one value for each start: ``[P, S]``.

    return: sum of discount^t r_t while the task goes on, plus discount^H V(s_H) where the horizon is
    shorter than an episode. amq-sum: sum over H steps of Q(s_t, a_t), nothing after termination (AM-Q as
    the paper writes it). amq-mean: mean of Q over the steps lived (as the published code computes it:
    a policy that falls early scores as well as one that lives).
    """

    def __init__(
        self,
        data: OfflineData,
        model: DynamicsModel,
        critics: Critics,
        config: ImproveConfig,
        *,
        time_limit: int | None,
    ) -> None:
        self.data, self.model, self.critics, self.config = data, model, critics, config
        limit = config.horizon if time_limit is None else time_limit
        self.horizon = min(config.horizon, limit)
        self.bootstraps = self.horizon < limit or time_limit is None
        self.unit = data.reward_unit  # V speaks scaled rewards

    @property
    def models(self) -> int:
        """How many models judge; columns of ``estimate`` come in one block for each."""
        return self.model.members

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Start states [M, K, D]: episode starts (or any rows) of the dataset, spread over the models."""
        per_model = -(-count // self.model.members)
        shape = (self.model.members, per_model)
        device = self.data.observations.device
        pool = self.data.starts if self.config.start_states == "initial" else None
        size = len(self.data) if pool is None else len(pool)
        index = torch.randint(size, shape, generator=generator, device=device)
        return self.data.observations[index if pool is None else pool[index]]

    @torch.no_grad()
    def estimate(self, policies: GaussianPolicy, *, seed: int, starts: int | None = None) -> Tensor:
        """Values [P, S] in environment units (Q units for AM-Q); equal seeds give equal conditions."""
        generator = torch.Generator(self.data.observations.device).manual_seed(seed)
        states = self.starts(self.config.starts if starts is None else starts, generator)
        shape = (policies.spec.members, *states.shape[:2])
        total = torch.zeros(shape, device=states.device)
        lived = torch.zeros_like(total)
        by_return = self.config.estimator == "return"

        def observe(step: ModelStep) -> None:
            if by_return:
                gain = self.config.discount**step.time * step.rewards
            else:
                gain = self.critics.min_q(step.observations, step.actions)
            total.scatter_add_(2, step.kept, step.survival * gain)
            lived.scatter_add_(2, step.kept, step.survival)

        noise = generator if self.config.model_noise else None
        left = model_rollouts(policies, self.model, states, self.horizon, observe, noise)
        if by_return and self.bootstraps and left[0].shape[2] > 0:
            kept, survival, observations = left
            tail = self.config.discount**self.horizon * self.unit * self.critics.values(observations)
            total.scatter_add_(2, kept, survival * tail)
        if self.config.estimator == "amq-mean":
            return (total.sum(dim=2) / lived.sum(dim=2)).repeat_interleave(shape[2], dim=1)
        return total.flatten(1)

    @torch.no_grad()
    def calibrate(self, behavior: GaussianPolicy, *, seed: int, starts: int) -> Calibration | None:
        """The models against the data, by sampled actions of the clones; None if no episode tells.

        An episode that was cut off before the horizon has no known return and is left out.
        """
        returns, known = episode_returns(self.data, self.horizon, self.config.discount)
        episodes = torch.nonzero(known).squeeze(1)
        if self.config.estimator != "return" or len(episodes) == 0:
            return None
        generator = torch.Generator(returns.device).manual_seed(seed)
        shape = (self.models, -(-starts // self.models))
        drawn = torch.randint(len(episodes), shape, generator=generator, device=returns.device)
        chosen = episodes[drawn]
        total = torch.zeros(behavior.spec.members, *shape, device=returns.device)

        def observe(step: ModelStep) -> None:
            gain = self.config.discount**step.time * step.rewards
            total.scatter_add_(2, step.kept, step.survival * gain)

        states = self.data.observations[self.data.starts[chosen]]
        noise = generator if self.config.model_noise else None
        model_rollouts(behavior, self.model, states, self.horizon, observe, noise, exploration=generator)
        return Calibration(float(returns[chosen].mean()), float(total.mean()))


def episode_returns(data: OfflineData, horizon: int, discount: float) -> tuple[Tensor, Tensor]:
    """Discounted return of each episode's first ``horizon`` steps [episodes], and whether it is known."""
    rows = torch.arange(len(data), device=data.starts.device)
    episode = torch.searchsorted(data.starts, rows, right=True) - 1
    time = rows - data.starts[episode]
    gains = torch.where(time < horizon, discount**time * data.environment_rewards, 0.0)
    returns = gains.new_zeros(len(data.starts)).index_add_(0, episode, gains)
    last = torch.cat([data.starts[1:], data.starts.new_tensor([len(data)])]) - 1
    lengths = last - data.starts + 1
    return returns, (data.terminals[last] > 0) | (lengths >= horizon)
