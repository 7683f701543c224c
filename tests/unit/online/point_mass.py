"""A task small enough to know its optimum: drive a point to the origin."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim.base import Array, StepResult

STEP = 0.25  # how far the largest action moves the point
EPISODE_STEPS = 20


class PointMass:
    """x' = x + STEP a, reward 1 - x^2 (or a constant); optional death outside |x| < wall."""

    env_id = "PointMass"
    observation_dim = 1
    action_dim = 1
    max_episode_steps: int | None = EPISODE_STEPS

    def __init__(self, num_envs: int = 8, *, reward: float | None = None, wall: float = np.inf) -> None:
        self.num_envs = num_envs
        self.action_low, self.action_high = -np.ones(1), np.ones(1)
        self.reward, self.wall = reward, wall
        self.rng = np.random.default_rng(0)
        self.x = np.zeros(num_envs)
        self.age = np.zeros(num_envs, np.int64)
        self.seen_actions: list[Array] = []

    def reset(self, seed: int) -> Array:
        self.rng = np.random.default_rng(seed)
        self.x = self.rng.uniform(-1.0, 1.0, self.num_envs)
        self.age = self.rng.integers(0, EPISODE_STEPS, self.num_envs)  # episodes end at different times
        return self.x[:, None].copy()

    def spread_ages(self) -> NDArray[np.int64]:
        """They differ from the start."""
        return self.age.copy()

    def step(self, actions: Array) -> StepResult:
        self.seen_actions.append(actions)
        self.x = self.x + STEP * np.clip(actions[:, 0], -1.0, 1.0)
        self.age += 1
        rewards = 1.0 - self.x**2 if self.reward is None else np.full(self.num_envs, self.reward)
        successors = self.x[:, None].copy()
        terminals = np.abs(self.x) >= self.wall
        timeouts = (self.age >= EPISODE_STEPS) & ~terminals
        ended = terminals | timeouts
        self.x[ended] = self.rng.uniform(-1.0, 1.0, int(ended.sum()))
        self.age[ended] = 0
        return StepResult(self.x[:, None].copy(), rewards, successors, terminals, timeouts)

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.copy(), "age": self.age.copy(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x, self.age = state["x"].copy(), state["age"].copy()
        self.rng.bit_generator.state = state["rng"]

    def close(self) -> None:
        pass


def make_ppo(seed: int = 0, *, sim: PointMass | None = None, normalize: Any = "frozen", **values: Any) -> PPO:
    """A learner on the point mass; ``values`` override settings."""
    settings: dict[str, Any] = {
        "env_steps": 20_000,
        "num_envs": 8,
        "rollout_steps": 32,
        "epochs": 4,
        "minibatch_size": 64,
        "actor_learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
        "warmup_steps": 0,
        "discount": 0.9,
        "value_hidden": (32,),
    }
    config = FinetuneConfig(**{**settings, **values})
    sim = PointMass(config.num_envs) if sim is None else sim
    generator = torch.Generator().manual_seed(seed)
    policy = GaussianPolicy(PolicySpec(1, 1, 1, (32,), "tanh", "shared"), generator=generator)
    value = ValueFunction.create(1, config.value_hidden, activation="tanh", generator=generator)
    return PPO(policy, value, sim, config, seed=seed, normalize=normalize)
