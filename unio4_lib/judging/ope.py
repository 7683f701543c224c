"""Off-policy evaluation: what a policy would return, judged by the learned model alone.

All estimators roll every policy through the same models from the same start states with the same noise
(common random numbers), so that the difference of two policies is far less noisy than either estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.critics import Critics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.threads import go_on, side_by_side
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.settings.model import ImproveConfig

COMPACT_EVERY = 25  # steps between looks at which rollouts are still alive
ALIVE = 1e-3  # below this survival a rollout counts for nothing
# Keeps the draws of sampled actions apart from those of the models; of a seed torch takes 32 bits alone.
EXPLORATION_STREAM = 1 << 30

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

    Without a generator the models' means are followed, else their noise is drawn from it. Actions are the
    policies' means, or sampled with draws of ``exploration``. Draws belong to a start, the same for every
    policy. The models take turns, step by step. Rollouts that died are dropped from the computation.
    Returns what is left at the horizon: kept [P, M, K'], survival [P, M, K'], observations [P, M, K', D].
    """
    count, (members, width, dim) = policies.spec.members, starts.shape
    observations = starts.expand(count, members, width, dim)
    survival = torch.ones(count, members, width, device=starts.device)
    kept = torch.arange(width, device=starts.device).expand(count, members, width)

    def draw(source: torch.Generator | None, size: int) -> Tensor | None:
        """Normal draws [P, M, K', size] of the rollouts that are left."""
        if source is None:
            return None
        drawn = torch.randn(members, width, size, generator=source, device=starts.device)
        index = kept.unsqueeze(-1).expand(-1, -1, -1, size)
        return drawn.expand(count, -1, -1, -1).gather(2, index)

    for time in range(horizon):
        go_on()
        if time % COMPACT_EVERY == 0 and time > 0:
            observations, survival, kept = _compact(observations, survival, kept)
            if observations.shape[2] == 0:
                break
        actions = _actions(policies, observations, draw(exploration, policies.spec.action_dim))
        noise = draw(generator, dim + 1)
        by_model = None if noise is None else _by_model(noise)
        step = model.step(_by_model(observations), _by_model(actions), by_model, turn=time)
        rows = observations.shape[2]
        rewards = step.rewards.view(members, count, rows).transpose(0, 1)
        observe(ModelStep(time, kept, survival, observations, actions, rewards))
        survival = survival * step.survival.view(members, count, rows).transpose(0, 1)
        observations = step.next_observations.view(members, count, rows, dim).transpose(0, 1)
    return kept, survival, observations


def _actions(policies: GaussianPolicy, observations: Tensor, noise: Tensor | None) -> Tensor:
    """Unit actions [P, M, K, A] for [P, M, K, D]; sampled ones are clamped, as the environment would."""
    gaussian = policies.distribution(observations.flatten(1, 2))
    actions = gaussian.mean if noise is None else gaussian.sample(noise.flatten(1, 2)).clamp(-1.0, 1.0)
    return actions.view(*observations.shape[:3], -1)


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


class PolicyEvaluator:
    """Estimates for many policies at once: ``[W, P, S]`` for W ways of acting and S starts.

    return: sum of discount^t r_t while the task goes on, plus discount^H V(s_H) where the horizon is
    shorter than an episode. amq-sum: sum over H steps of Q(s_t, a_t), nothing after termination (AM-Q as
    the paper writes it). amq-mean: mean of Q over the steps lived (as the published code computes it:
    a policy that falls early scores as well as one that lives).

    ``ways`` are the mean action and, unless only that is to be judged, sampled actions: the two returns of
    one policy can differ by a factor of two, in either direction. Without ``bootstrap`` nothing is added for
    what follows the horizon.
    """

    def __init__(
        self,
        data: OfflineData,
        model: DynamicsModel,
        critics: Critics,
        config: ImproveConfig,
        *,
        time_limit: int | None,
        ways: tuple[str, ...] | None = None,
        bootstrap: bool = True,
    ) -> None:
        self.data, self.model, self.critics, self.config = data, model, critics, config
        limit = config.horizon if time_limit is None else time_limit
        self.horizon = min(config.horizon, limit)
        self.bootstraps = bootstrap and (self.horizon < limit or time_limit is None)
        self.unit = data.reward_unit  # V speaks scaled rewards
        self.ways = ways or (("mean", "sampled") if config.acting == "both" else ("mean",))

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Start states [M, K, D]: episode starts (or any rows) of the dataset, spread over the models."""
        per_model = -(-count // self.model.members)
        shape = (self.model.members, per_model)
        device = self.data.observations.device
        pool = self.data.starts if self.config.start_states == "initial" else None
        size = len(self.data) if pool is None else len(pool)
        index = torch.randint(size, shape, generator=generator, device=device)
        return self.data.observations[index if pool is None else pool[index]]

    def estimate(self, policies: GaussianPolicy, *, seed: int, starts: int | None = None) -> Tensor:
        """Values [W, P, S] in environment units (Q units for AM-Q); equal seeds give equal conditions."""
        return torch.stack(
            side_by_side([partial(self._estimate, policies, way, seed, starts) for way in self.ways])
        )

    @torch.no_grad()
    def _estimate(self, policies: GaussianPolicy, way: str, seed: int, starts: int | None) -> Tensor:
        """Values [P, S] of one way of acting."""
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
        exploration = None
        if way == "sampled":
            exploration = torch.Generator(states.device).manual_seed(seed + EXPLORATION_STREAM)
        left = model_rollouts(policies, self.model, states, self.horizon, observe, noise, exploration)
        if by_return and self.bootstraps and left[0].shape[2] > 0:
            kept, survival, observations = left
            tail = self.config.discount**self.horizon * self.unit * self.critics.values(observations)
            total.scatter_add_(2, kept, survival * tail)
        if self.config.estimator == "amq-mean":
            return (total.sum(dim=2) / lived.sum(dim=2)).repeat_interleave(shape[2], dim=1)
        return total.flatten(1)
