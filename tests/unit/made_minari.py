"""A Minari dataset laid down by hand, to be broken in its metadata or in its file."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from minari.serialization import serialize_space

EPISODES, STEPS, WIDTH = 3, 20, 4
SOURCE = "minari:made/set-v0"
SPEC: dict[str, Any] = {
    "id": "InvertedPendulum-v5",
    "entry_point": "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv",
    "max_episode_steps": 1000,
    "kwargs": {},
}


def made_minari(root: Path, **metadata: Any) -> Path:
    """The folder of a dataset that is fine but for the metadata given; None leaves a key out."""
    data = root / "made" / "set-v0" / "data"
    data.mkdir(parents=True, exist_ok=True)
    facts = {
        "total_episodes": EPISODES,
        "total_steps": EPISODES * STEPS,
        "data_format": "hdf5",
        "observation_space": serialize_space(spaces.Box(-np.inf, np.inf, (WIDTH,), np.float64)),
        "action_space": serialize_space(spaces.Box(-3.0, 3.0, (1,), np.float32)),
        "env_spec": json.dumps(SPEC),
        "dataset_id": "made/set-v0",
        "dataset_size": 0.1,
        **metadata,
    }
    (data / "metadata.json").write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number in range(EPISODES):
            for name, values in made_episode(number).items():
                file[f"episode_{number}/{name}"] = values
    return data


def made_episode(number: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(number)
    return {
        "observations": generator.normal(size=(STEPS + 1, WIDTH)),
        "actions": generator.uniform(-3, 3, (STEPS, 1)).astype(np.float32),
        "rewards": generator.normal(size=STEPS),
        "terminations": np.zeros(STEPS, np.bool_),
        "truncations": np.arange(STEPS) == STEPS - 1,
    }


def replace_field(data: Path, name: str, values: Any, episode: int = 1) -> None:
    """Put other values, or a link, in the place of a field."""
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file[f"episode_{episode}/{name}"]
        file[f"episode_{episode}/{name}"] = values
