"""Training of off-policy learners: on the dataset, then in the environment on old and new rows."""

import copy
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unio4_lib.learning.evaluation import SimFactory
from unio4_lib.learning.finetune import CurvePoint, Evaluate, Progress
from unio4_lib.learning.learner import Learner
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.memory import keep_freed_memory
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import Fresh, Replay
from unio4_lib.learning.replays import also_when_replayed, fastest
from unio4_lib.learning.rollout import Collector
from unio4_lib.learning.threads import tiny_is_zero
from unio4_lib.nets.policy import Policy
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig, OffPolicyTuneConfig

LOOKED_AT = 4096  # rows of the data behind a look


class OfflineTraining:
    """Minibatches of the dataset, one after the other.

    At first values fit the returns that followed in the data: bootstrapping from random networks takes
    thousands of updates until rewards have come through, and policies follow what comes before.
    """

    def __init__(
        self, learner: Learner, data: OfflineData, config: OffPolicyTrainConfig, *, seed: int
    ) -> None:
        self.learner, self.data, self.config = learner, data, config
        self.replay = Replay(data, 1, "union")
        self.generator = torch.Generator(data.observations.device).manual_seed(seed)
        every = max(1, len(data) // LOOKED_AT)
        self.updates, self.fitting = 0, round(config.monte_carlo_share * config.steps)
        self._looked_at = torch.arange(0, len(data), every, device=data.observations.device)

    def step(self) -> Metrics:
        batch = self.replay.sample(self.config.batch_size, self.generator)
        also_when_replayed(self._count)
        with tiny_is_zero():
            return self.learner.update(with_returns(batch) if self.updates <= self.fitting else batch)

    def _count(self) -> None:
        self.updates += 1

    def phase(self) -> Hashable:
        """Whether it fits returns, and how the learner moves."""
        return self.updates < self.fitting, self.learner.phase()

    def draws_from(self) -> list[torch.Generator]:
        return [self.generator, *self.learner.draws_from()]

    def evaluate(self) -> Metrics:
        return self.learner.look(self.data.rows(self._looked_at), self.data.returns[self._looked_at])

    def finished(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        kept = {"learner": self.learner.state_dict(), "generator": self.generator.get_state()}
        return kept | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]


def with_returns(batch: Batch) -> Batch:
    """Rows that end at once and pay all that followed: what Q should be of them is their return."""
    return batch._replace(rewards=batch.returns, terminals=torch.ones_like(batch.terminals))


class BatchUpdates:
    """Updates of a learner on minibatches that all lie in the same memory."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.batch: Batch | None = None
        self._step = fastest(self, self.step)

    def update(self, batch: Batch) -> Metrics:
        """One update; what it says is overwritten by the next one."""
        if self.batch is None:
            self.batch = Batch._make(part.clone() for part in batch)
        else:
            torch._foreach_copy_(list(self.batch), list(batch))
        return self._step()

    def step(self) -> Metrics:
        assert self.batch is not None
        with tiny_is_zero():
            return self.learner.update(self.batch)

    def phase(self) -> Hashable:
        return self.learner.phase()

    def draws_from(self) -> list[torch.Generator]:
        return self.learner.draws_from()


class OnlineTraining:
    """Steps in the environment, and updates on what the replay mixes; ``run`` yields the learning curve.

    The first point is the policy as it came. The next ``warmup_steps`` only collect, with that policy: the
    first new rows show where its values are wrong before anything moves. ``delivered`` is the policy of the
    best point so far (or the last), so that what is handed over never drops.
    """

    def __init__(
        self,
        learner: Learner,
        data: OfflineData,
        config: OffPolicyTuneConfig,
        make_sim: SimFactory,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.learner, self.config, self.batch_size = learner, config, batch_size
        self.learning = BatchUpdates(learner)
        self.device = data.observations.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.replay = Replay(data, min(config.replay_rows, config.env_steps + config.num_envs), config.mixing)
        self.collector = Collector(make_sim(config.num_envs), seed=seed, device=self.device)
        self.collector.spread_ages()
        self.reward_unit = data.reward_unit
        self.env_steps, self.next_evaluation, self.updates = 0, 0, 0
        self.delivered = copy.deepcopy(learner.policy).requires_grad_(False)
        self.delivered_at, self.delivered_return = 0, -math.inf
        learner.go_online()

    @property
    def policy(self) -> Policy:
        """The one that learns."""
        return self.learner.policy

    def run(self, evaluate: Evaluate, progress: Progress | None = None) -> Iterator[CurvePoint]:
        """Train to the end of the budget; at every progress and every point ``state_dict`` is complete."""
        keep_freed_memory()
        while True:
            if self.env_steps >= self.next_evaluation:
                every = self.config.evaluate_every
                following = (self.env_steps // every + 1) * every
                self.next_evaluation = min(following, max(self.config.env_steps, self.env_steps + 1))
                stats = evaluate(self.learner.policy)
                if self.config.deliver == "last" or stats.mean > self.delivered_return:
                    self.delivered.load_state_dict(self.learner.policy.state_dict())
                    self.delivered_at, self.delivered_return = self.env_steps, float(stats.mean)
                yield CurvePoint(self.env_steps, stats)
            if self.env_steps >= self.config.env_steps:
                return
            metrics = self._round(min(self.next_evaluation, self.env_steps + self.config.round_steps))
            if progress is not None:
                progress(self.env_steps, metrics)

    def _round(self, until: int) -> Metrics:
        """Steps and updates up to a number of environment steps; the mean of what the updates said.

        A round ends early where the learner has done a piece of other work.
        """
        said: dict[str, list[Tensor]] = defaultdict(list)  # not by every update: policies may rest
        while self.env_steps < until:
            for name, value in (prepared := self._prepare()).items():
                said[name].append(value)
            if prepared:
                break
            self._collect()
            for _ in range(self._due()):
                batch = self.replay.sample(self.batch_size, self.generator)
                for name, value in self.learning.update(batch).items():
                    said[name].append(value.clone())
        metrics = {name: torch.stack(values).mean() for name, values in said.items()}
        if returns := self.collector.recent_returns:
            metrics["acting/sampled_return"] = torch.tensor(returns, device=self.device).mean()
        return metrics

    def _prepare(self) -> Metrics:
        """What the learner does before the next step, if that may bring updates."""
        if self.env_steps + self.collector.sim.num_envs <= self.config.warmup_steps:
            return {}
        return self.learner.prepare(self.replay, self.env_steps)

    @torch.no_grad()
    def _collect(self) -> None:
        """One step of every environment; the rows are in the units of the data."""
        policy, sim = self.learner.policy, self.collector.sim
        observations = policy.normalize(self._tensor(self.collector.observations))
        shape = (sim.num_envs, sim.action_dim)
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        actions = self.learner.explore(observations, noise).clamp(-1.0, 1.0)
        result = self.collector.step(policy.to_environment(actions).double().cpu().numpy())
        self.env_steps += sim.num_envs
        self.replay.add(
            Fresh(
                observations,
                actions,
                self._tensor(result.rewards) / self.reward_unit,
                policy.normalize(self._tensor(result.next_observations)),
                self._tensor(result.terminals),
                self._tensor(result.terminals | result.timeouts),
            )
        )

    def _due(self) -> int:
        """Updates that the newest steps allow; none while only collecting."""
        allowed = int((self.env_steps - self.config.warmup_steps) * self.config.updates_per_step)
        due = max(0, allowed - self.updates)
        self.updates += due
        return due

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.device)

    def close(self) -> None:
        self.collector.sim.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "collector": self.collector.state_dict(),
            "generator": self.generator.get_state(),
            "delivered": copy.deepcopy(self.delivered.state_dict()),
            **{name: getattr(self, name) for name in SCALARS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.collector.load_state_dict(state["collector"])
        self.generator.set_state(state["generator"])
        self.delivered.load_state_dict(state["delivered"])
        for name in SCALARS:
            setattr(self, name, state[name])


SCALARS = ("env_steps", "next_evaluation", "updates", "delivered_at", "delivered_return")
