"""Fine-tuning of an offline policy in its environment, without a drop at the switch."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch

from unio4_lib.learning.evaluation import EpisodeStats, SimFactory
from unio4_lib.learning.ppo import PPO, Metrics
from unio4_lib.learning.ratchet import LOOK, SAMPLED, Level, Ratchet
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy, Policy, follow
from unio4_lib.settings.model import FinetuneConfig

WARMUP_EPOCHS = 20  # passes over the warm-up batch: it is small, and V starts from nothing


class Evaluate(Protocol):
    """Whole episodes of a policy, by its mean action or by sampled ones."""

    def __call__(self, policy: Policy, *, sampled: bool = False) -> EpisodeStats: ...


Progress = Callable[[int, Metrics], None]  # environment steps so far, metrics of the round


class CurvePoint(NamedTuple):
    """One evaluation on the learning curve."""

    env_steps: int
    stats: EpisodeStats


class FineTuning:
    """PPO from a given policy; ``run`` yields the learning curve while it trains.

    The first point is the given policy at 0 environment steps, its mean action unchanged. Its std is made
    ``std_scale`` times as large: PPO improves the policy that samples, and where that one falls over every
    few steps, what is good for it is often bad for the mean action, which is what is handed over.

    The next ``warmup_steps`` only fit V: a policy that follows the advantages of an untrained V forgets
    what it knew. Only then it moves. All steps count against ``env_steps``, those of the warm-up too;
    those of evaluations are extra.

    The mean action of what learns swings: in Hopper by a factor of three between neighboring updates, while
    its sampled returns rise. So what is looked at is ``average``, the running average of its weights over
    updates (Polyak & Juditsky 1992), and ``ratchet`` leads back to the last good average after a fall.
    ``delivered`` is the average of the best point so far, so that what is handed over never drops. Its
    return on the curve is flattered by that choice; a score needs episodes of its own.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        config: FinetuneConfig,
        make_sim: SimFactory,
        *,
        seed: int,
        initial_value: ValueFunction | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        if initial_value is None:
            dim = policy.spec.observation_dim
            initial_value = ValueFunction.create(dim, config.value_hidden, generator=generator)
        value = initial_value.to(policy.observation_mean.device)
        self.config = config
        learner = policy.narrowed(config.std_scale).requires_grad_(True)
        self.ppo = PPO(learner, value, make_sim(config.num_envs), config, seed=seed)
        self.ppo.collector.spread_ages()
        self.average = copy.deepcopy(learner).requires_grad_(False)
        self.ratchet = Ratchet(config.tolerated_fall, config.step_after_fall)
        self.next_evaluation = 0
        self.warm = False
        self.delivered = copy.deepcopy(learner).requires_grad_(False)
        self.delivered_at, self.delivered_return = 0, -math.inf

    @property
    def policy(self) -> GaussianPolicy:
        """The one that learns."""
        return self.ppo.policy

    @property
    def env_steps(self) -> int:
        return self.ppo.env_steps

    def run(self, evaluate: Evaluate, progress: Progress | None = None) -> Iterator[CurvePoint]:
        """Train to the end of the budget.

        ``progress`` is called after every round; there and at every point of the curve ``state_dict``
        is complete, so a run may be stopped and taken up at any of them.
        """
        while True:
            if self.ppo.env_steps >= self.next_evaluation:
                steps = self.ppo.env_steps
                self.next_evaluation = self._following_evaluation(steps)
                stats = evaluate(self.average)
                self._consider(steps, stats)
                if steps == 0:  # before the policy moves: the learner's own first episodes are its shortest
                    self._hold(SAMPLED, Level.of(evaluate(self.average, sampled=True).returns))
                self._hold(LOOK, Level.of(stats.returns))
                yield CurvePoint(steps, stats)
            if self.ppo.env_steps >= self.config.env_steps:
                return
            metrics = self.advance()
            if progress is not None:
                progress(self.ppo.env_steps, metrics)

    def _consider(self, steps: int, stats: EpisodeStats) -> None:
        """Deliver the present policy from now on, if it is the best so far or the newest is asked for."""
        if self.config.deliver == "last" or stats.mean > self.delivered_return:
            self.delivered.load_state_dict(self.average.state_dict())
            self.delivered_at, self.delivered_return = steps, float(stats.mean)

    def _following_evaluation(self, steps: int) -> int:
        """The next multiple of ``evaluate_every``; the end of the budget is always evaluated."""
        every = self.config.evaluate_every
        return min((steps // every + 1) * every, max(self.config.env_steps, steps + 1))

    def advance(self) -> Metrics:
        """One round: the warm-up if it is due, else a batch and its update."""
        if not self.warm:
            self.warm = True
            if self.config.warmup_steps > 0:
                return self._warm_up()
        metrics = self.ppo.train()
        follow(self.average, self.ppo.policy, 1.0 - self.config.averaging)
        if returns := self.ppo.collector.running_returns():
            self._hold(SAMPLED, Level.of(returns))
        return metrics | self._acting()

    def _hold(self, what: str, level: Level) -> None:
        """Go back after a fall; a look that is none makes the present networks the good ones."""
        if self.ratchet.fell(what, level):
            good = self.ratchet.go_back(self.ppo.env_steps)
            self.ppo.go_back(good)
            self.average.load_state_dict(good["policy"])
        elif what == LOOK:
            self.ratchet.keep(self.ppo.networks() | {"policy": copy.deepcopy(self.average.state_dict())})
        self.ppo.step = self.ratchet.step

    def _acting(self) -> Metrics:
        """What the learner itself earned lately: the return of its sampled actions."""
        returns = self.ppo.collector.recent_returns
        if not returns:
            return {}
        return {"acting/sampled_return": torch.tensor(returns, device=self.ppo.device).mean()}

    def _warm_up(self) -> Metrics:
        rollout = self.ppo.collect(-(-self.config.warmup_steps // self.config.num_envs))
        return self.ppo.warm_up(rollout, WARMUP_EPOCHS)

    def close(self) -> None:
        self.ppo.collector.sim.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "ppo": self.ppo.state_dict(),
            "next_evaluation": self.next_evaluation,
            "warm": self.warm,
            "average": copy.deepcopy(self.average.state_dict()),
            "delivered": copy.deepcopy(self.delivered.state_dict()),
            "delivered_at": self.delivered_at,
            "delivered_return": self.delivered_return,
            "ratchet": self.ratchet.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ppo.load_state_dict(state["ppo"])
        self.average.load_state_dict(state["average"])
        self.delivered.load_state_dict(state["delivered"])
        self.ratchet.load_state_dict(state["ratchet"])
        self.ppo.step = self.ratchet.step
        for name in ("next_evaluation", "warm", "delivered_at", "delivered_return"):
            setattr(self, name, state[name])
