"""On-policy experience from a batch of environments."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unio4_lib.learning.threads import go_on
from unio4_lib.nets.policy import Policy
from unio4_lib.sim.base import Array, BatchSim, StepResult

RECENT_EPISODES = 100  # finished episodes that are remembered
FEWEST_RUNNING = 20  # finished episodes behind a running return, where environments are few

# Called with observations [N, D], the actions [N, A] that the environments got, and their answer.
Observer = Callable[[Array, Array, StepResult], None]


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments; float32 unless said otherwise.

    ``actions`` are the unit actions as sampled, before the clamp to the box that the environments get,
    and ``log_probs`` is their density: the importance ratio must be the ratio of the distributions that
    were sampled, and the clamp is part of the environment.
    """

    observations: Tensor  # [T, N, D] in the units of the environment
    next_observations: Tensor  # [T, N, D] the true successors, also at episode ends
    actions: Tensor  # [T, N, A]
    log_probs: Tensor  # [T, N]
    rewards: Tensor  # [T, N]
    terminals: Tensor  # [T, N] bool: the successor has no value
    episode_ends: Tensor  # [T, N] bool: terminal or timeout; row t + 1 belongs to another episode

    @property
    def env_steps(self) -> int:
        return self.rewards.numel()


class Collector:
    """Lets a policy act in N environments and keeps the score of finished episodes."""

    def __init__(self, sim: BatchSim, *, seed: int, device: torch.device) -> None:
        self.sim = sim
        self.device = device
        self.observations = sim.reset(seed)
        self.returns = np.zeros(sim.num_envs)  # of the episodes under way
        self.lengths = np.zeros(sim.num_envs, np.int64)
        self.recent_returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_lengths: deque[int] = deque(maxlen=RECENT_EPISODES)
        self.ended = np.zeros(sim.num_envs, np.bool_)  # environments behind the recent episodes
        self.whole = np.ones(sim.num_envs, np.bool_)  # whether the episode under way will have a return

    @torch.no_grad()
    def collect(
        self,
        policy: Policy,
        steps: int,
        generator: torch.Generator,
        observer: Observer | None = None,
    ) -> Rollout:
        """Sampled actions of member 0 for ``steps`` steps of every environment."""
        envs, actions_dim = self.sim.num_envs, self.sim.action_dim
        observations = np.empty((steps, envs, self.sim.observation_dim), np.float32)
        next_observations = np.empty_like(observations)
        rewards = np.empty((steps, envs), np.float32)
        terminals, ends = np.empty((steps, envs), np.bool_), np.empty((steps, envs), np.bool_)
        noise = torch.randn(steps, envs, actions_dim, generator=generator, device=generator.device)
        noise = noise.to(self.device)
        actions, log_probs = torch.empty_like(noise), noise.new_empty(steps, envs)
        for t in range(steps):
            go_on()
            observations[t] = self.observations
            distribution = policy.distribution(policy.normalize(self._tensor(observations[t])))
            sampled = distribution.sample(noise[t])
            actions[t], log_probs[t] = sampled[0], distribution.log_prob(sampled)[0]
            applied = policy.to_environment(sampled[0]).double().cpu().numpy()
            before = self.observations
            result = self.step(applied)
            if observer is not None:
                observer(before, applied, result)
            next_observations[t], rewards[t] = result.next_observations, result.rewards
            terminals[t], ends[t] = result.terminals, result.terminals | result.timeouts
        return Rollout(
            self._tensor(observations),
            self._tensor(next_observations),
            actions,
            log_probs,
            self._tensor(rewards),
            self._tensor(terminals),
            self._tensor(ends),
        )

    def step(self, actions: Array) -> StepResult:
        """One step of every environment with actions [N, A] in its units."""
        result = self.sim.step(actions)
        self._keep_score(result)
        self.observations = result.observations
        return result

    def spread_ages(self) -> None:
        """Let episodes end at different times from now on; those under way are cut and have no return.

        Where no robot falls, episodes that began together stay together until the end of all training, and
        most batches hold no beginning of an episode: a policy improved on them forgets how to begin.
        """
        self.whole = self.sim.spread_ages() == 0

    def forget(self) -> None:
        """Finished episodes no longer count: another policy acts from now on."""
        self.recent_returns.clear()
        self.recent_lengths.clear()
        self.ended[:] = False

    def running_returns(self) -> list[float]:
        """The newest finished episodes, one for each environment on average.

        Empty until every environment has finished one: the first to finish are the shortest.
        """
        newest = max(FEWEST_RUNNING, self.sim.num_envs)
        ready = self.ended.all() and len(self.recent_returns) >= newest
        return list(self.recent_returns)[-newest:] if ready else []

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _keep_score(self, result: StepResult) -> None:
        self.returns += result.rewards
        self.lengths += 1
        ended = result.terminals | result.timeouts
        if ended.any():
            counted = ended & self.whole
            self.recent_returns.extend(self.returns[counted].tolist())
            self.recent_lengths.extend(self.lengths[counted].tolist())
            self.ended |= counted
            self.whole |= ended
            self.returns[ended] = 0.0
            self.lengths[ended] = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "sim": self.sim.state_dict(),
            "observations": self.observations.copy(),
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
            "recent_returns": list(self.recent_returns),
            "recent_lengths": list(self.recent_lengths),
            "ended": self.ended.copy(),
            "whole": self.whole.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sim.load_state_dict(state["sim"])
        self.observations = np.array(state["observations"])
        self.returns = np.array(state["returns"])
        self.lengths = np.array(state["lengths"])
        self.recent_returns = deque(state["recent_returns"], maxlen=RECENT_EPISODES)
        self.recent_lengths = deque(state["recent_lengths"], maxlen=RECENT_EPISODES)
        self.ended, self.whole = np.array(state["ended"]), np.array(state["whole"])
