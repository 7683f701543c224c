"""The learned models as a batch of environments: what learns in the simulator can learn here."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.nets.policy import to_unit
from unio4_lib.sim.base import Array, StepResult, check_actions

# Keeps the draws of the models apart from those of who acts in them; of a seed torch takes 32 bits alone.
NOISE_STREAM = 1 << 29


class ModelSim:
    """N environments that are models; see ``sim.base.BatchSim`` for the contract.

    The models take turns: step t of environment i is answered by model (i + t) mod M. What one of them gets
    wrong does not add up over an episode, and a policy learns nothing that pleases one alone. The share
    ``initial`` of all episodes begins where recorded ones do, the others at any row of the dataset; they are
    cut after ``length`` steps, which is a timeout. Where the termination is learned, an episode ends with the
    probability that the model gives. ``noise`` scales the models' own std; ``num_envs`` is rounded up to a
    multiple of M.
    """

    def __init__(
        self,
        data: OfflineData,
        model: DynamicsModel,
        num_envs: int,
        *,
        length: int,
        noise: float = 1.0,
        initial: float = 0.0,
    ) -> None:
        self.env_id = "learned models"
        self.model, self.data, self.noise, self.initial = model, data, noise, initial
        self.per_model = -(-num_envs // model.members)
        self.num_envs = self.per_model * model.members
        self.observation_dim, self.action_dim = data.observation_dim, data.action_dim
        self.action_low: Array = data.action_low.double().cpu().numpy()
        self.action_high: Array = data.action_high.double().cpu().numpy()
        self.max_episode_steps: int | None = length
        self._time = 0
        self._elapsed = torch.zeros(self.num_envs, dtype=torch.int64, device=data.starts.device)
        self._states = torch.empty(0, device=data.starts.device)
        self._generator = torch.Generator(data.observations.device)

    def reset(self, seed: int) -> Array:
        """Start all episodes anew. Returns observations [N, D]."""
        self._generator.manual_seed(seed + NOISE_STREAM)
        self._time = 0
        self._states = self._begin()
        # Episodes of equal age would all end in the same step, and no batch would see the others' ages.
        length = self.max_episode_steps or 1
        self._elapsed = torch.randint(
            length, (self.num_envs,), generator=self._generator, device=self._states.device
        )
        return self._observations(self._states)

    def spread_ages(self) -> NDArray[np.int64]:
        """They differ from the start."""
        return self._elapsed.cpu().numpy().copy()

    @torch.no_grad()
    def step(self, actions: Array) -> StepResult:
        """Apply actions [N, A] in the environment's units and begin anew what ended."""
        check_actions(actions, self.num_envs, self.action_dim)
        device = self._states.device
        unit = to_unit(
            torch.as_tensor(actions, dtype=torch.float32, device=device),
            self.data.action_low,
            self.data.action_high,
        ).clamp(-1.0, 1.0)
        shape = (self.model.members, self.per_model, self.observation_dim + 1)
        noise = self.noise * torch.randn(shape, generator=self._generator, device=device)
        step = self.model.step(self._by_model(self._states), self._by_model(unit), noise, turn=self._time)
        self._time += 1
        chance = torch.rand(self.num_envs, generator=self._generator, device=device)
        terminals = chance >= self._flat(step.survival[..., None])[:, 0]
        self._elapsed += 1
        timeouts = (self._elapsed >= (self.max_episode_steps or 1)) & ~terminals
        following = self._flat(step.next_observations)
        ended = terminals | timeouts
        self._elapsed = torch.where(ended, 0, self._elapsed)
        self._states = torch.where(ended[:, None], self._begin(), following)
        return StepResult(
            self._observations(self._states),
            self._flat(step.rewards[..., None])[:, 0].double().cpu().numpy(),
            self._observations(following),
            terminals.cpu().numpy(),
            timeouts.cpu().numpy(),
        )

    def _begin(self) -> Tensor:
        """Normalized states [N, D] to begin at."""
        device, starts = self.data.observations.device, self.data.starts

        def draw(size: int) -> Tensor:
            return torch.randint(size, (self.num_envs,), generator=self._generator, device=device)

        row = draw(len(self.data))
        if self.initial > 0:
            first = starts[draw(len(starts))]
            chance = torch.rand(self.num_envs, generator=self._generator, device=device)
            row = torch.where(chance < self.initial, first, row)
        return self.data.observations[row]

    def _observations(self, states: Tensor) -> Array:
        raw = states * self.data.observation_std + self.data.observation_mean
        found: Array = raw.double().cpu().numpy()
        return found

    def _by_model(self, rows: Tensor) -> Tensor:
        """[N, X] -> [M, N / M, X]: environment i belongs to block i mod M."""
        return rows.view(self.per_model, self.model.members, -1).transpose(0, 1)

    def _flat(self, values: Tensor) -> Tensor:
        """[M, N / M, X] -> [N, X]."""
        return values.transpose(0, 1).reshape(self.num_envs, -1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "states": self._states.cpu().numpy().copy(),
            "elapsed": self._elapsed.cpu().numpy().copy(),
            "time": self._time,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.data.observations.device
        self._states = torch.as_tensor(np.array(state["states"]), device=device)
        self._elapsed = torch.as_tensor(np.array(state["elapsed"]), device=device)
        self._time = int(state["time"])
        self._generator.set_state(state["generator"])

    def close(self) -> None:
        """Nothing is held."""
