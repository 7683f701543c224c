"""A policy of unio4 as an MLflow model that acts with numpy and safetensors alone.

MLflow copies this file into the model and runs it from there ("models from code"), so it must import
nothing of unio4: it repeats the forward pass of ``nets/policy.py``, and a test holds the two together.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from safetensors.numpy import load_file

LOG_STD_MIN, LOG_STD_MAX = -5.0, 0.0
FAMILIES, SQUASHED = ("family", "squashed_family"), ("squashed", "squashed_family")
LAYER_NORM_EPSILON = 1e-5
ENCODED = 3  # waves that tell a family the coefficient of its policy
RAW_LOG_STD_MIN, RAW_LOG_STD_MAX = -5.0, 2.0  # of squashed policies


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0)


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1.0 + np.exp(-values))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": relu, "tanh": np.tanh, "silu": silu}


class ActingPolicy(PythonModel):
    """Observations [B, D] to actions [B, A], both in the units of the environment.

    Actions are the mean's, or are sampled where the policy was delivered so ("acts" in policy.json).
    """

    def load_context(self, context: PythonModelContext) -> None:
        folder = Path(context.artifacts["policy"])
        description = json.loads((folder / "policy.json").read_text())
        self.spec = description["spec"]
        self.kind = self.spec.get("kind", "gaussian")
        self.noise = np.random.default_rng() if description.get("acts") == "sampled" else None
        tensors = load_file(folder / "policy.safetensors")
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        self.activation = ACTIVATIONS[self.spec["activation"]]

    # MLflow reads the annotation of the input, and warns whoever loads the model if there is none.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        # Policies see observations as float32, as in training.
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            values = np.asarray(model_input, np.float32).astype(np.float64)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):  # a policy would answer with an action all the same, or with NaN
            raise ValueError(f"observations[{broken[0]}] is not finite: {values[broken[0]]}")
        values = (values - self.tensors["observation_mean"]) / self.tensors["observation_std"]
        if self.kind in FAMILIES:
            values = self._told(values)
        mean, raw_std = self._heads(values, "net")
        actions = np.tanh(mean)
        if self.noise is not None:
            noise = self._std(raw_std) * self.noise.standard_normal(actions.shape)
            squashed = self.kind in SQUASHED
            actions = np.tanh(mean + noise) if squashed else np.clip(actions + noise, -1.0, 1.0)
        if self.kind == "expanded" and self.tensors["expanded"]:
            actions = self._better(values, np.tanh(self._heads(values, "old.net")[0]), actions)
        low, high = self.tensors["action_low"], self.tensors["action_high"]
        return low + (actions + 1.0) * 0.5 * (high - low)

    def _told(self, values: np.ndarray) -> np.ndarray:
        """Observations and, in waves, the coefficients that the balance picks for them."""
        low, high = self.spec["coefficients"]
        if low == high:
            return values
        coefficients = low + 0.5 * (np.tanh(self._net(values, "balance.net")) + 1.0) * (high - low)
        angles = coefficients / 10_000.0 ** (np.arange(ENCODED) / ENCODED)
        waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        return np.concatenate([values, waves.reshape(len(values), -1)], axis=1)

    def _better(self, observations: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Of two actions in each row the one that the smaller of both values prefers."""
        worth = [
            np.minimum(*(self._net(np.hstack([observations, actions]), "values", q) for q in range(2)))
            for actions in (old, new)
        ]
        return np.where(worth[1] >= worth[0], new, old)

    def _heads(self, values: np.ndarray, name: str) -> list[np.ndarray]:
        """Means before tanh, and what there is of stds."""
        return np.split(self._net(values, name), [self.spec["action_dim"]], axis=1)

    def _net(self, values: np.ndarray, name: str, member: int = 0) -> np.ndarray:
        for index in range(len(self.spec["hidden"])):
            values = self._affine(values, f"{name}.layers.{index}", member)
            values = self.activation(self._norm(values, f"{name}.norms.{index}", member))
        return self._affine(values, f"{name}.output", member)

    def _norm(self, values: np.ndarray, layer: str, member: int) -> np.ndarray:
        """Layer normalization, where there is one."""
        if f"{layer}.scale" not in self.tensors:
            return values
        spread = np.sqrt(values.var(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
        scale, shift = self.tensors[f"{layer}.scale"][member], self.tensors[f"{layer}.shift"][member]
        return shift + scale * (values - values.mean(axis=1, keepdims=True)) / spread

    def _std(self, raw_std: np.ndarray) -> np.ndarray | float:
        if self.kind == "deterministic":
            return self.spec["std_scale"]
        raw_std = raw_std if self.spec["std"] == "state" else self.tensors["raw_std"][0]
        low, high = LOG_STD_MIN, LOG_STD_MAX
        if self.kind in SQUASHED:
            low, high = RAW_LOG_STD_MIN, RAW_LOG_STD_MAX
        return self.spec["std_scale"] * np.exp(low + 0.5 * (high - low) * (np.tanh(raw_std) + 1.0))

    def _affine(self, values: np.ndarray, layer: str, member: int) -> np.ndarray:
        return values @ self.tensors[f"{layer}.weight"][member] + self.tensors[f"{layer}.bias"][member, 0]


set_model(ActingPolicy())
