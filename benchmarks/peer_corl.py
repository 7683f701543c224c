"""Train CORL's IQL offline, then online, for so many processor seconds each; for peers.py.

    python peer_corl.py CHECKOUT data.npz SEED OFFLINE_SECONDS ONLINE_SECONDS FOLDER

Its classes are imported from the checkout; what they need of other packages only for D4RL and Weights &
Biases is left out. The loop is that of its `train`: one update for each environment step. Settings: its
file for Hopper medium-replay (IQL offline), the rest of them its defaults for fine-tuning.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import gymnasium
import numpy as np
import torch

TARGET_RATE, NOISE, NOISE_LIMIT = 0.001, 0.03, 0.5
BUFFER, BATCH = 1_000_000, 256
CHECK = 100  # steps between looks at the clock


def load(checkout: str) -> ModuleType:
    for name in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[name] = MagicMock()
    sys.path.insert(0, checkout)
    return importlib.import_module("algorithms.finetune.iql")


class Scaled(torch.nn.Module):
    """A policy from raw observations to actions within bounds."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, actor: torch.nn.Module, mean: np.ndarray, std: np.ndarray, high: float) -> None:
        super().__init__()
        self.actor, self.high = actor, high
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return (self.actor((observations - self.mean) / self.std) * self.high).clamp(-self.high, self.high)


class Peer:
    def __init__(self, corl: ModuleType, data: dict[str, np.ndarray], seed: int) -> None:
        self.mean, self.std = corl.compute_mean_std(data["observations"], eps=1e-3)
        observation_dim, action_dim = data["observations"].shape[1], data["actions"].shape[1]
        self.high = float(data["action_high"][0])
        self.env = gymnasium.make(str(data["env_id"]))
        self.seed, self.started = seed, False
        dataset = {name: np.array(data[name]) for name in ("actions", "rewards", "terminals")}
        for name in ("observations", "next_observations"):
            dataset[name] = corl.normalize_states(data[name], self.mean, self.std)
        # CORL finds an episode's end by its length; here it is known.
        ends = np.flatnonzero(data["terminals"] | data["timeouts"])
        returns = [part.sum() for part in np.split(data["rewards"], ends[:-1] + 1)]
        self.reward_scale = 1000.0 / (max(returns) - min(returns))
        dataset["rewards"] = dataset["rewards"] * self.reward_scale
        self.buffer = corl.ReplayBuffer(observation_dim, action_dim, BUFFER)
        self.buffer.load_d4rl_dataset(dataset)
        self.actor = corl.DeterministicPolicy(observation_dim, action_dim, self.high)
        q, v = corl.TwinQ(observation_dim, action_dim), corl.ValueFunction(observation_dim)
        adam = torch.optim.Adam
        self.trainer = corl.ImplicitQLearning(
            self.high,
            self.actor,
            adam(self.actor.parameters(), lr=3e-4),
            q,
            adam(q.parameters(), lr=3e-4),
            v,
            adam(v.parameters(), lr=3e-4),
            tau=TARGET_RATE,
        )

    def update(self) -> None:
        self.trainer.train(self.buffer.sample(BATCH))

    def act_and_update(self) -> None:
        if not self.started:
            self.state, self.started = self._normalized(self.env.reset(seed=self.seed)[0]), True
        with torch.no_grad():
            action = self.actor(torch.tensor(self.state.reshape(1, -1), dtype=torch.float32))
        action += (torch.randn_like(action) * NOISE).clamp(-NOISE_LIMIT, NOISE_LIMIT)
        action = (self.high * action).clamp(-self.high, self.high).numpy().flatten()
        following, reward, terminal, timeout, _ = self.env.step(action)
        following = self._normalized(following)
        scaled = float(reward) * self.reward_scale
        self.buffer.add_transition(self.state, action, scaled, following, terminal)
        self.state = self._normalized(self.env.reset()[0]) if terminal or timeout else following
        self.update()

    def _normalized(self, observation: np.ndarray) -> np.ndarray:
        return (observation - self.mean) / self.std

    def save(self, path: Path) -> None:
        policy = Scaled(self.actor, self.mean, self.std, self.high)
        example = torch.zeros(2, len(np.ravel(self.mean)))
        torch.jit.trace(policy.eval(), example).save(str(path))
        policy.train()


def spend(step: Callable[[], None], seconds: float) -> tuple[int, float]:
    """Steps until the processor seconds are used up, and how many were really used."""
    began, steps = time.process_time(), 0
    while time.process_time() - began < seconds:
        for _ in range(CHECK):
            step()
        steps += CHECK
    return steps, time.process_time() - began


def main() -> None:
    checkout, path, seed, offline, online, folder = sys.argv[1:]
    torch.set_num_threads(1)
    corl = load(checkout)
    torch.manual_seed(int(seed))
    np.random.seed(int(seed))
    peer = Peer(corl, dict(np.load(path)), int(seed))
    notes = []
    phases = (
        ("offline", peer.update, offline, "gradient steps"),
        ("online", peer.act_and_update, online, "environment steps"),
    )
    for phase, step, budget, unit in phases:
        steps, used = spend(step, float(budget))
        peer.save(Path(folder) / f"{phase}.pt")
        notes.append({"file": f"{phase}.pt", "phase": phase, "seconds": used, "done": f"{steps} {unit}"})
    (Path(folder) / "done.json").write_text(json.dumps(notes), encoding="utf-8")


if __name__ == "__main__":
    main()
