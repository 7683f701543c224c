"""A small dataset to be broken in one place at a time, and what every refusal has to look like."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import ENVIRONMENT, call, run_arguments

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions

ROWS, LENGTH, WIDTH = 60, 20, 4  # three episodes in the shape of ENVIRONMENT

Capture = pytest.CaptureFixture[str]


def good_arrays() -> dict[str, Any]:
    """Fields of a dataset that is fine; the tests break one thing at a time."""
    generator = np.random.default_rng(0)
    episodes = ROWS // LENGTH
    states = generator.normal(size=(episodes, LENGTH + 1, WIDTH)).astype(np.float32)
    ends = np.arange(ROWS) % LENGTH == LENGTH - 1
    return {
        "observations": states[:, :-1].reshape(ROWS, WIDTH),
        "actions": generator.uniform(-3, 3, (ROWS, 1)).astype(np.float32),
        "rewards": generator.normal(size=ROWS).astype(np.float32),
        "next_observations": states[:, 1:].reshape(ROWS, WIDTH),
        "terminals": np.zeros(ROWS, np.bool_),
        "timeouts": ends,
        "episode_offsets": np.arange(0, ROWS + 1, LENGTH),
        "info": DatasetInfo(ENVIRONMENT, {}, (-3.0,), (3.0,), "test", None, None, {}),
    }


def saved(folder: Path, **changed: Any) -> str:
    """A dataset folder with some fields changed; nothing checks them while it is written."""
    Transitions(**{**good_arrays(), **changed}).save(folder / "data")
    return f"transitions:{folder / 'data'}"


def edited(name: str, row: int, value: float) -> dict[str, Any]:
    array = good_arrays()[name].copy()
    array[row] = value
    return {name: array}


def with_info(**changed: Any) -> dict[str, Any]:
    return {"info": replace(good_arrays()["info"], **changed)}


def one_episode(rows: int) -> dict[str, Any]:
    """The first rows as one episode: every s' is the next s."""
    arrays = {
        name: good_arrays()[name][:rows] for name in ("observations", "actions", "rewards", "terminals")
    }
    states = np.concatenate([arrays["observations"], np.zeros((1, WIDTH), np.float32)])
    timeouts = np.arange(rows) == rows - 1
    offsets = np.array([0, rows])
    return {**arrays, "next_observations": states[1:], "timeouts": timeouts, "episode_offsets": offsets}


def refused(capsys: Capture, arguments: list[str], *words: str) -> str:
    """The one line of a refusal."""
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err
    for word in words:
        assert word in err, (word, err)
    return err


def refused_run(capsys: Capture, folder: Path, dataset: str, *words: str, **changed: Any) -> str:
    """As ``refused``, and the output folder holds no run."""
    output = folder / "runs"
    line = refused(capsys, [*run_arguments(dataset, output, **changed), "--quiet", "--json"], *words)
    assert not output.exists() or {path.name for path in output.iterdir()} <= {"artifacts"}
    return line
