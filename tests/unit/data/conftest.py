"""Small real datasets: random episodes with both kinds of ends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions

OBSERVATION_DIM, ACTION_DIM = 3, 2

Arrays = dict[str, Any]


def random_arrays(lengths: Sequence[int], seed: int = 0) -> Arrays:
    """Arguments of Transitions.build; every second episode ends by a terminal, the others by a timeout."""
    generator = np.random.default_rng(seed)
    rows, ends = sum(lengths), np.cumsum(lengths) - 1
    states = [generator.normal(size=(length + 1, OBSERVATION_DIM)).astype(np.float32) for length in lengths]
    terminals, timeouts = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    terminals[ends[0::2]] = True
    timeouts[ends[1::2]] = True
    return {
        "observations": np.concatenate([part[:-1] for part in states]),
        "actions": generator.uniform(-1, 1, size=(rows, ACTION_DIM)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "next_observations": np.concatenate([part[1:] for part in states]),
        "terminals": terminals,
        "timeouts": timeouts,
        "info": DatasetInfo(
            env_id="Hopper-v5",
            env_kwargs={"reset_noise_scale": 0.1},
            action_low=(-1.0,) * ACTION_DIM,
            action_high=(1.0,) * ACTION_DIM,
            source="test",
            ref_min_score=-1.0,
            ref_max_score=3.0,
            extra={"note": "made in a test"},
        ),
    }


@pytest.fixture
def make_arrays() -> Callable[..., Arrays]:
    return random_arrays


@pytest.fixture
def make_transitions() -> Callable[..., Transitions]:
    return lambda *args, **kwargs: Transitions.build(**random_arrays(*args, **kwargs))


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for Minari datasets, and no way to a remote one."""
    root = tmp_path / "minari"
    root.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return root
