"""Who makes candidates for the gate: PPO in the learned models, or the paper's steps along the critics."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.judging.model_sim import ModelSim
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.surrogate import clipped_surrogate
from unio4_lib.learning.threads import side_by_side
from unio4_lib.learning.updates import Group, straight
from unio4_lib.learning.value import ValueFunction
from unio4_lib.methods.unio4.advantages import CriticAdvantages, Minibatch
from unio4_lib.nets.policy import GaussianPolicy, copy_members, follow, stack_policies
from unio4_lib.settings.model import FinetuneConfig, ImproveConfig

WARMUP_EPOCHS = 20  # passes over the first batch, which only fits V


class Learner(Protocol):
    """Moves E candidates; what becomes of them is the gate's business."""

    def candidates(self) -> GaussianPolicy:
        """The E policies as they are now."""
        ...

    def step(self) -> Metrics:
        """One step of all candidates; metrics [E]."""
        ...

    def keep(self, members: Tensor) -> None:
        """These candidates [E] (bool) were accepted as they are."""
        ...

    def put_back(self, members: Tensor, accepted: GaussianPolicy) -> None:
        """These candidates [E] (bool) begin again from their accepted policies."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def ppo_in_models(config: ImproveConfig, num_envs: int) -> FinetuneConfig:
    """The settings of online PPO for a world of ``num_envs`` environments that are made of models."""
    batch = num_envs * config.rollout_steps
    return FinetuneConfig(
        env_steps=(config.steps + config.warmup_rounds) * batch,
        num_envs=num_envs,
        rollout_steps=config.rollout_steps,
        epochs=config.epochs,
        minibatch_size=min(config.batch_size, batch),
        actor_learning_rate=config.learning_rate,
        critic_learning_rate=config.value_learning_rate,
        value_hidden=config.value_hidden,
        clip=config.clip,
        entropy=config.entropy,
        max_grad_norm=config.max_grad_norm,
        discount=config.rollout_discount,
        gae_lambda=config.gae_lambda,
        warmup_steps=0,
    )


class ModelLearner:
    """The PPO that fine-tunes online, one for each candidate, acting in the learned models.

    The newest policy swings; a candidate is its running average over rounds, as it is online.
    """

    def __init__(
        self,
        start: GaussianPolicy,
        data: OfflineData,
        model: DynamicsModel,
        config: ImproveConfig,
        *,
        seed: int,
    ) -> None:
        self.config = config
        self.tracks = []
        for member in range(start.spec.members):
            own = seed + 101 * member
            generator = torch.Generator().manual_seed(own)
            value = ValueFunction.create(data.observation_dim, config.value_hidden, generator=generator)
            sim = ModelSim(
                data,
                model,
                config.rollouts,
                length=config.episode_steps,
                noise=config.rollout_noise,
                initial=config.initial_share,
            )
            policy = start.members([member]).requires_grad_(True)
            device = policy.observation_mean.device
            settings = ppo_in_models(config, sim.num_envs)
            self.tracks.append(PPO(policy, value.to(device), sim, settings, seed=own))
        self.averages = [copy.deepcopy(track.policy).requires_grad_(False) for track in self.tracks]
        self.warm = False

    def candidates(self) -> GaussianPolicy:
        return stack_policies(self.averages)

    def step(self) -> Metrics:
        """One round of PPO for every candidate; the first one fits V before anything moves."""
        if not self.warm:
            self.warm = True
            side_by_side([partial(self._warm_up, track) for track in self.tracks])
        rounds = side_by_side([track.train for track in self.tracks])
        for average, track in zip(self.averages, self.tracks, strict=True):
            follow(average, track.policy, 1.0 - self.config.averaging)
        shown = ("policy/kl", "policy/clip_fraction", "value/explained_variance")
        return {
            f"improve/{name.split('/')[1]}": torch.stack([metrics[name] for metrics in rounds])
            for name in shown
        }

    def _warm_up(self, track: PPO) -> None:
        length = self.config.warmup_rounds * self.config.rollout_steps
        track.warm_up(track.collect(length), WARMUP_EPOCHS)

    def keep(self, members: Tensor) -> None:
        """PPO goes on from where it is."""

    def put_back(self, members: Tensor, accepted: GaussianPolicy) -> None:
        for member in torch.nonzero(members).flatten().tolist():
            track, weights = self.tracks[member], accepted.members([member]).state_dict()
            for policy in (track.policy, self.averages[member]):
                policy.load_state_dict(weights)
            track.policy_group.forget()  # momentum belongs to the way that is given up

    def state_dict(self) -> dict[str, Any]:
        return {
            "tracks": [track.state_dict() for track in self.tracks],
            "averages": [average.state_dict() for average in self.averages],
            "warm": self.warm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for track, saved in zip(self.tracks, state["tracks"], strict=True):
            track.load_state_dict(saved)
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self.warm = state["warm"]


def clipped_objective(
    policy: GaussianPolicy, batch: Minibatch, clip: float, entropy: float
) -> tuple[Tensor, Metrics]:
    """The clipped surrogate of PPO against the anchor's actions, summed over members; metrics [E]."""
    found = clipped_surrogate(
        policy.distribution(batch.observations),
        batch.actions,
        batch.log_probs,
        batch.advantages,
        clip=clip,
        entropy=entropy,
    )
    metrics = {"improve/kl": found.kl, "improve/clip_fraction": found.clip_fraction}
    return found.loss.sum(), metrics


@torch.no_grad()
def limit_norms(gradients: Sequence[Tensor], most: float) -> None:
    """Limit the norm of each member's gradients on its own, as if it were a network alone."""
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0)
    factor = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *([1] * (gradient.dim() - 1))))


class CriticLearner:
    """The paper's: clipped steps on dataset states along min Q - V, all candidates in one batched step."""

    def __init__(self, start: GaussianPolicy, source: CriticAdvantages, config: ImproveConfig) -> None:
        self.config, self.source = config, source
        self.policy = copy.deepcopy(start).requires_grad_(True)
        self.group = Group([self.policy], config.learning_rate, straight(config.steps))

    def candidates(self) -> GaussianPolicy:
        return self.policy

    def step(self) -> Metrics:
        batch = self.source.next(self.policy)
        loss, metrics = clipped_objective(self.policy, batch, self.config.clip, self.config.entropy)
        gradients = self.group.gradients(loss)
        limit_norms(gradients, self.config.max_grad_norm)
        self.group.move(gradients)
        return metrics

    def keep(self, members: Tensor) -> None:
        self.source.renew(members, self.policy)

    def put_back(self, members: Tensor, accepted: GaussianPolicy) -> None:
        copy_members(accepted, self.policy, members)
        for mean in self.group.means:
            # The second moment stays: members share Adam's step count, so zeroing it would enlarge the
            # next hundred steps.
            mean[members.to(mean.device)] = 0.0
        self.source.renew(members, self.policy)

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "group": self.group.state_dict(),
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.group.load_state_dict(state["group"])
        self.source.load_state_dict(state["source"])
