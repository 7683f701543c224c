"""Where offline PPO gets its minibatches from: critics on dataset states, or rollouts of the model."""

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.nets.policy import GaussianPolicy, copy_members
from unio4_lib.offline.critics import Critics
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.dynamics import DynamicsModel

ADVANTAGE_FLOOR = 1e-8


class Minibatch(NamedTuple):
    """Actions drawn from an anchor policy, with what they were worth."""

    observations: Tensor  # [E, B, D] normalized
    actions: Tensor  # [E, B, A] as sampled, unit scale, not clamped
    log_probs: Tensor  # [E, B] under the anchor
    advantages: Tensor  # [E, B] standardized for each member


class AdvantageSource(Protocol):
    """Gives minibatches to improve E candidates by; the anchor is the policy that the ratios refer to."""

    def next(self, candidate: GaussianPolicy) -> Minibatch: ...

    def renew(self, members: Tensor, candidate: GaussianPolicy) -> None:
        """Members [E] (bool) were accepted as they are, or put back: ratios refer to them from now on."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def standardize(advantages: Tensor) -> Tensor:
    """Mean 0, std 1 over the batch of each member, [E, B]."""
    centered = advantages - advantages.mean(dim=1, keepdim=True)
    return centered / (centered.square().mean(dim=1, keepdim=True).sqrt() + ADVANTAGE_FLOOR)


class CriticAdvantages:
    """The paper's source: dataset states, actions of the anchor, A = min Q - V of the frozen critics."""

    def __init__(
        self, data: OfflineData, critics: Critics, policy: GaussianPolicy, config: ImproveConfig, *, seed: int
    ) -> None:
        self.data, self.critics, self.config = data, critics, config
        self.anchor = copy.deepcopy(policy).requires_grad_(False)
        self.generator = torch.Generator(data.observations.device).manual_seed(seed)
        self.drawn = 0

    @torch.no_grad()
    def next(self, candidate: GaussianPolicy) -> Minibatch:
        every = self.config.anchor_every
        if every is not None and self.drawn % every == 0:
            self.anchor.load_state_dict(candidate.state_dict())
        self.drawn += 1
        device = self.data.observations.device
        members, batch = candidate.spec.members, self.config.batch_size
        rows = torch.randint(len(self.data), (batch,), generator=self.generator, device=device)
        observations = self.data.observations[rows]
        gaussian = self.anchor.distribution(observations)
        noise = torch.randn(gaussian.mean.shape, generator=self.generator, device=device)
        actions = gaussian.sample(noise)
        shared = observations.expand(members, -1, -1)
        # V(s) is the same for all actions of a row, but the standardization runs over rows.
        advantages = self.critics.min_q(shared, actions) - self.critics.values(observations)
        return Minibatch(shared, actions, gaussian.log_prob(actions), standardize(advantages))

    def renew(self, members: Tensor, candidate: GaussianPolicy) -> None:
        copy_members(candidate, self.anchor, members)

    def state_dict(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor.state_dict(),
            "generator": self.generator.get_state(),
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.load_state_dict(state["anchor"])
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"]


@dataclass
class Rollouts:
    """Model experience of E members, time first: [T, E, R, ...]."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    next_observations: Tensor
    survival: Tensor  # probability that the task goes on after the step
    fresh: Tensor  # bool: the next row of this rollout starts elsewhere


def model_advantages(
    rollouts: Rollouts, values: Tensor, next_values: Tensor, discount: float, lam: float
) -> Tensor:
    """Generalized advantages [T, E, R] with survival probabilities in place of terminal flags.

    delta_t = r_t + discount * survival_t * V(s'_t) - V(s_t); the chain is cut where a rollout restarts.
    """
    deltas = rollouts.rewards + discount * rollouts.survival * next_values - values
    carry = discount * lam * rollouts.survival * (~rollouts.fresh)
    advantages = torch.empty_like(deltas)
    ahead = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        ahead = deltas[t] + carry[t] * ahead
        advantages[t] = ahead
    return advantages


class ModelAdvantages:
    """Each member walks in the learned models from dataset states; A by GAE with a V of its own.

    Each member's V is fitted to its own rollouts; the first round fits nothing else. One model serves a
    rollout for its whole length, so that its errors are those of one possible world.
    """

    def __init__(
        self,
        data: OfflineData,
        model: DynamicsModel,
        members: int,
        config: ImproveConfig,
        *,
        seed: int,
    ) -> None:
        self.data, self.model, self.config = data, model, config
        device = data.observations.device
        self.generator = torch.Generator(device).manual_seed(seed)
        init = torch.Generator().manual_seed(seed)
        self.values = EnsembleMLP(
            members, data.observation_dim, 1, config.value_hidden, activation="tanh", generator=init
        ).to(device)
        self.optimizer = torch.optim.Adam(self.values.parameters(), lr=config.value_learning_rate, fused=True)
        # Rewards are divided by this, so that V learns numbers of the order of one.
        self.scale = float(data.environment_rewards.std().clamp(min=1e-6)) / (1.0 - config.rollout_discount)
        self.queue: list[Minibatch] = []
        self.rounds = 0

    def next(self, candidate: GaussianPolicy) -> Minibatch:
        if not self.queue:
            self._refill(candidate)
        return self.queue.pop()

    def renew(self, members: Tensor, candidate: GaussianPolicy) -> None:
        self.queue.clear()  # what is queued was drawn from policies that may be gone

    def _refill(self, candidate: GaussianPolicy) -> None:
        with torch.no_grad():
            rollouts = self._walk(candidate)
            values = self._predict(rollouts.observations)
            next_values = self._predict(rollouts.next_observations)
            advantages = model_advantages(
                rollouts, values, next_values, self.config.rollout_discount, self.config.gae_lambda
            )
            flat = [_members_first(x) for x in (rollouts.observations, rollouts.actions)]
            log_probs, targets = _members_first(rollouts.log_probs), _members_first(advantages + values)
            whole = Minibatch(flat[0], flat[1], log_probs, standardize(_members_first(advantages)))
        first = self.rounds == 0
        self.rounds += 1
        for _ in range(self.config.epochs * (4 if first else 1)):
            for index in self._minibatches(whole.log_probs.shape[1]):
                self._fit_values(whole.observations[:, index], targets[:, index])
                if not first:  # the first round only fits V to the policies
                    self.queue.append(Minibatch(*(x[:, index] for x in whole)))
        if first:
            self._refill(candidate)

    def _minibatches(self, rows: int) -> list[Tensor]:
        order = torch.randperm(rows, generator=self.generator, device=self.data.observations.device)
        size = min(self.config.batch_size, rows)
        return [order[at : at + size] for at in range(0, rows - size + 1, size)]

    def _predict(self, observations: Tensor) -> Tensor:
        """V of each member, [T, E, R, D] -> [T, E, R]."""
        time, members, rows, dim = observations.shape
        flat = observations.transpose(0, 1).reshape(members, time * rows, dim)
        return self.values(flat)[..., 0].view(members, time, rows).transpose(0, 1)

    def _fit_values(self, observations: Tensor, targets: Tensor) -> None:
        loss = (self.values(observations)[..., 0] - targets).square().mean(dim=1).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def _walk(self, candidate: GaussianPolicy) -> Rollouts:
        config, device = self.config, self.data.observations.device
        members, models = candidate.spec.members, self.model.members
        per_model = -(-config.rollouts // models)
        rows, dim = models * per_model, self.data.observation_dim
        steps: list[tuple[Tensor, ...]] = []
        observations = self._dataset_states((members, rows))
        for time in range(config.rollout_steps):
            gaussian = candidate.distribution(observations)
            draws = torch.randn(gaussian.mean.shape, generator=self.generator, device=device)
            actions = gaussian.sample(draws)
            noise = None
            if config.model_noise:
                shape = (models, members * per_model, dim + 1)
                noise = torch.randn(shape, generator=self.generator, device=device)
            step = self.model.step(self._to_models(observations), self._to_models(actions), noise)
            following = self._from_models(step.next_observations, members)
            survival = self._from_models(step.survival[..., None], members)[..., 0]
            rewards = self._from_models(step.rewards[..., None], members)[..., 0] / self.scale
            chance = torch.rand(survival.shape, generator=self.generator, device=device)
            fresh = (chance > survival) | (time == config.rollout_steps - 1)
            log_probs = gaussian.log_prob(actions)
            steps.append((observations, actions, log_probs, rewards, following, survival, fresh))
            restarts = self._dataset_states((members, rows))
            observations = torch.where(fresh[..., None], restarts, following)
        return Rollouts(*(torch.stack(column) for column in zip(*steps, strict=True)))

    def _dataset_states(self, shape: tuple[int, int]) -> Tensor:
        device = self.data.observations.device
        index = torch.randint(len(self.data), shape, generator=self.generator, device=device)
        return self.data.observations[index]

    def _to_models(self, values: Tensor) -> Tensor:
        """[E, M * K, X] -> [M, E * K, X]."""
        members, rows, width = values.shape
        models = self.model.members
        split = values.view(members, models, rows // models, width)
        return split.transpose(0, 1).reshape(models, -1, width)

    def _from_models(self, values: Tensor, members: int) -> Tensor:
        """[M, E * K, X] -> [E, M * K, X]."""
        models, rows, width = values.shape
        split = values.view(models, members, rows // members, width)
        return split.transpose(0, 1).reshape(members, -1, width)

    def state_dict(self) -> dict[str, Any]:
        return {
            "values": self.values.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "queue": [tuple(batch) for batch in self.queue],
            "rounds": self.rounds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values.load_state_dict(state["values"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.queue = [Minibatch(*batch) for batch in state["queue"]]
        self.rounds = state["rounds"]


def _members_first(values: Tensor) -> Tensor:
    """[T, E, R, ...] -> [E, T * R, ...]."""
    return values.transpose(0, 1).flatten(1, 2)
