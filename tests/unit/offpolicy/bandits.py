"""A task of one step whose best action is known, and learners small enough to look into."""

from typing import Any

import numpy as np
import torch
from offline_worlds import make_data, make_transitions
from torch import Tensor

from unio4_lib.learning.learner import Learner
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig, OffPolicyTuneConfig

BEST = 0.4
TRAIN = OffPolicyTrainConfig(steps=400, batch_size=64, discount=0.9, monte_carlo_share=0.0)
TUNE = OffPolicyTuneConfig(env_steps=100, warmup_steps=0)


def bandit(rows: int = 500, seed: int = 0) -> OfflineData:
    """Uniform actions in states that mean nothing; 1 at the best action, and every episode ends there."""
    g = np.random.default_rng(seed)
    states, actions = g.normal(size=(rows, 1)), g.uniform(-1.0, 1.0, (rows, 1))
    rewards = 1.0 - 4.0 * (actions[:, 0] - BEST) ** 2
    ends = np.ones(rows, np.bool_)
    return make_data(make_transitions(states, actions, rewards, states, ends, np.zeros_like(ends)))


def run_of(room: OffPolicy, **own: Any) -> OffPolicyRun:
    """Settings of a method with some of its own section."""
    sections = {"train": TRAIN.model_dump(), "finetune": TUNE.model_dump(), room.name: {"hidden": (8,)} | own}
    return room.settings.model_validate({"dataset": "none", **sections})


def made(room: OffPolicy, data: OfflineData, **own: Any) -> Any:
    """A new learner."""
    return room.make(data, run_of(room, **own), torch.Generator().manual_seed(0))


def trained(room: OffPolicy, data: OfflineData, steps: int = TRAIN.steps, **own: Any) -> Learner:
    training = OfflineTraining(made(room, data, **own), data, TRAIN, seed=1)
    for _ in range(steps):
        training.step()
    return training.learner


def some_rows(data: OfflineData, rows: int = 6) -> Batch:
    """Rows of several episodes, two of which end there."""
    batch = data.rows(torch.arange(rows) * 7)
    terminals = torch.zeros(rows)
    terminals[[1, 4]] = 1.0
    return batch._replace(terminals=terminals)


def lag(learner: Any) -> None:
    """Set the slow copies apart from their networks, so that one cannot stand in for the other."""
    slow = [learner.q.slow, *([learner.slow_policy] if hasattr(learner, "slow_policy") else [])]
    with torch.no_grad():
        for part in (part for module in slow for part in module.parameters()):
            part.add_(0.1)


def states(*modules: torch.nn.Module) -> list[Tensor]:
    """All numbers of some networks, as they are now."""
    return [part.detach().clone() for module in modules for part in module.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
