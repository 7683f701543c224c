"""Proximal policy optimization (Schulman et al. 2017) on a batch of environments.

``PPO`` collects, computes targets and takes gradient steps; the objective itself is in ``objective``,
because the offline phase follows it too. Policy and value function share no parameter and are updated by
loops of their own, so an early stop of the one does not starve the other.
"""

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from unio4_lib.learning.rollout import Collector, Observer, Rollout
from unio4_lib.learning.surrogate import clipped_surrogate, generalized_advantages, standardize_advantages
from unio4_lib.learning.threads import side_by_side, torch_threads
from unio4_lib.learning.updates import Group, limit_norm
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim.base import BatchSim

Metrics = dict[str, Tensor]  # detached 0-d tensors

ADAM_EPSILON = 1e-5  # of the field's PPO implementations: gradients here are small
VALUE_STREAM = 1 << 40  # keeps the minibatches of V apart from every other seed's random numbers
STD_FLOOR = 1e-2  # smallest std of a running observation normalizer


def value_loss(value: ValueFunction, observations: Tensor, targets: Tensor) -> tuple[Tensor, Metrics]:
    """0.5 * mean (net(s) - target)^2 for normalized observations [B, D], standardized targets [B].

    There is no clipping around the old value: the published code clips at the policy's ratio in raw
    reward units, which all but freezes the value function where rewards are large.
    """
    loss = 0.5 * (value.standardized(observations) - targets).square().mean()
    return loss, {"value/value_loss": loss.detach()}


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant."""
    residual = (returns - values).var(correction=0)
    return 1.0 - residual / returns.var(correction=0).clamp(min=1e-12)


def remaining_fraction(step: int, total: int) -> float:
    """Factor of a learning rate that falls linearly to zero at ``total``."""
    return max(0.0, 1.0 - step / total)


class PPO:
    """Collects with a policy and improves it; see ``train`` for one round.

    ``normalize="frozen"`` keeps the policy's observation statistics (fine-tuning); ``"running"`` lets
    them follow the data (training from scratch). All randomness comes from two generators and from the
    simulator, so on a CPU equal seeds give equal bits.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        value: ValueFunction,
        sim: BatchSim,
        config: FinetuneConfig,
        *,
        seed: int,
        normalize: Literal["frozen", "running"] = "frozen",
    ) -> None:
        if policy.spec.members != 1:
            found = policy.spec.members
            raise ValueError(f"PPO improves one policy, found {found} members: choose one with members()")
        self.policy, self.value, self.config = policy, value, config
        self.normalize = normalize
        self.device = policy.observation_mean.device
        self.collector = Collector(sim, seed=seed, device=self.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.value_generator = torch.Generator().manual_seed(seed + VALUE_STREAM)
        self.policy_group = Group([policy], config.actor_learning_rate, epsilon=ADAM_EPSILON)
        self.value_group = Group([value], config.critic_learning_rate, epsilon=ADAM_EPSILON)
        self.observation_count = 0  # rows behind the running observation statistics
        self.env_steps = 0
        self.step = 1.0  # share of the policy's step size, and of its KL, that updates may use

    def train(self, observer: Observer | None = None) -> Metrics:
        """One round: collect a batch, then improve policy and value function on it."""
        rollout = self.collect(self.config.rollout_steps, observer)
        metrics = self.update(rollout)
        if self.normalize == "running":
            # After the update: within a round the stored densities belong to the statistics in force.
            self._follow_observations(rollout.observations)
        return metrics

    def collect(self, steps: int, observer: Observer | None = None) -> Rollout:
        """``steps`` steps of every environment with sampled actions."""
        with torch_threads(1):
            rollout = self.collector.collect(self.policy, steps, self.generator, observer)
        self.env_steps += rollout.env_steps
        return rollout

    def update(self, rollout: Rollout) -> Metrics:
        """Gradient steps of both networks on one batch."""
        with torch_threads(1):
            return self._update(rollout)

    def _update(self, rollout: Rollout) -> Metrics:
        advantages, returns, before = self.targets(rollout, self.config.gae_lambda)
        advantages = standardize_advantages(advantages).flatten()
        self.value.rescale(returns)
        fraction = remaining_fraction(self.env_steps, self.config.env_steps) if self.config.anneal else 1.0
        self.policy_group.learning_rate = self.config.actor_learning_rate * fraction * self.step
        self.value_group.learning_rate = self.config.critic_learning_rate * fraction
        observations = self.policy.normalize(rollout.observations).flatten(0, 1)
        batch = (observations, rollout.actions.flatten(0, 1), rollout.log_probs.flatten(), advantages)
        # The two loops share nothing but read-only rows.
        metrics, fitting = side_by_side(
            [
                partial(self._update_policy, *batch),
                partial(self.fit_value, observations, returns.flatten(), self.config.epochs),
            ]
        )
        return metrics | fitting | {"value/explained_variance": before}

    @torch.no_grad()
    def targets(self, rollout: Rollout, lam: float) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages [T, N], returns [T, N] and the present explained variance [] of a batch."""
        values = self._values(rollout.observations)
        advantages = generalized_advantages(
            rollout.rewards,
            values,
            self._values(rollout.next_observations),
            rollout.terminals,
            rollout.episode_ends,
            self.config.discount,
            lam,
        )
        returns = advantages + values
        return advantages, returns, explained_variance(values, returns)

    def _values(self, observations: Tensor) -> Tensor:
        """V [T, N] in reward units of observations [T, N, D] of the environment."""
        flat = self.policy.normalize(observations).flatten(0, 1)
        return self.value(flat).view(observations.shape[:2])

    def warm_up(self, rollout: Rollout, epochs: int) -> Metrics:
        """Fit V to the present policy alone.

        Regresses on the full discounted sums of the batch (lambda = 1), which owe nothing to the untrained
        V but beyond the last row; that tail is bootstrapped anew in every epoch.
        """
        observations = self.policy.normalize(rollout.observations).flatten(0, 1)
        metrics: Metrics = {}
        with torch_threads(1):
            for _ in range(epochs):
                returns = self.targets(rollout, 1.0)[1]
                self.value.rescale(returns)
                metrics = self.fit_value(observations, returns.flatten(), 1)
            return metrics | {"value/explained_variance": self.targets(rollout, 1.0)[2]}

    def _update_policy(
        self, observations: Tensor, actions: Tensor, log_probs: Tensor, advantages: Tensor
    ) -> Metrics:
        config, history = self.config, []
        for _ in range(config.epochs):
            epoch: list[Metrics] = []
            for rows in self._minibatches(len(observations), self.generator):
                found = clipped_surrogate(
                    self.policy.distribution(observations[rows]),
                    actions[rows],
                    log_probs[rows],
                    advantages[rows],
                    clip=config.clip,
                    entropy=config.entropy,
                )
                self._apply(self.policy_group, found.loss.sum())
                epoch.append({f"policy/{name}": value.detach()[0] for name, value in found._asdict().items()})
            history.append(average(epoch))
            # One look per epoch, not per minibatch: reading a number waits for the device.
            most = math.inf if config.target_kl is None else config.target_kl * self.step
            if most < math.inf and float(history[-1]["policy/kl"]) > most:
                break
        epochs = torch.tensor(float(len(history)), device=self.device)
        return average(history) | {"policy/kl": history[-1]["policy/kl"], "policy/epochs": epochs}

    def fit_value(self, observations: Tensor, returns: Tensor, epochs: int) -> Metrics:
        """Regress V on returns [B] (reward units) of normalized observations [B, D]."""
        targets = self.value.standardize(returns)
        history: list[Metrics] = []
        for _ in range(epochs):
            for rows in self._minibatches(len(observations), self.value_generator):
                loss, metrics = value_loss(self.value, observations[rows], targets[rows])
                self._apply(self.value_group, loss)
                history.append(metrics)
        return average(history)

    def _minibatches(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A fresh random partition of the rows into minibatches of nearly equal size."""
        order = torch.randperm(rows, generator=generator).to(self.device)
        return order.tensor_split(max(1, math.ceil(rows / self.config.minibatch_size)))

    def _apply(self, group: Group, loss: Tensor) -> None:
        gradients = group.gradients(loss)
        limit_norm(gradients, self.config.max_grad_norm)
        group.move(gradients)

    @torch.no_grad()
    def _follow_observations(self, observations: Tensor) -> None:
        """Merge the mean and variance of observations [T, N, D] into the policy's statistics."""
        rows = observations.flatten(0, 1).double()
        count = self.observation_count + len(rows)
        share = len(rows) / count
        old_mean, old_std = self.policy.observation_mean.double(), self.policy.observation_std.double()
        gap = rows.mean(0) - old_mean
        variance = (1 - share) * old_std.square() + share * rows.var(0, correction=0)
        variance += share * (1 - share) * gap.square()
        self.policy.observation_mean.copy_(old_mean + share * gap)
        self.policy.observation_std.copy_(variance.sqrt().clamp(min=STD_FLOOR))
        self.observation_count = count

    def networks(self) -> dict[str, Any]:
        """Policy with its normalizer, and V, as they are now."""
        return {"policy": _copied(self.policy.state_dict()), "value": _copied(self.value.state_dict())}

    def go_back(self, networks: dict[str, Any]) -> None:
        """Go on from earlier networks; nothing that later ones left behind counts any more."""
        self.policy.load_state_dict(networks["policy"])
        self.value.load_state_dict(networks["value"])
        for group in (self.policy_group, self.value_group):
            group.forget()  # momentum belongs to the way that is given up
        self.collector.forget()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on."""
        return {
            **self.networks(),
            "policy_group": self.policy_group.state_dict(),
            "value_group": self.value_group.state_dict(),
            "generator": self.generator.get_state(),
            "value_generator": self.value_generator.get_state(),
            "collector": self.collector.state_dict(),
            "observation_count": self.observation_count,
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("policy", "value", "policy_group", "value_group", "collector"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.value_generator.set_state(state["value_generator"])
        self.observation_count = state["observation_count"]
        self.env_steps = state["env_steps"]


def average(history: list[Metrics]) -> Metrics:
    """Mean of each metric, still on the device."""
    return {name: torch.stack([metrics[name] for metrics in history]).mean() for name in history[0]}


def _copied(state: Any) -> Any:
    """A state without shared memory: live tensors change in place with the next gradient step."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state
