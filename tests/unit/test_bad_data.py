"""Datasets that are not in order: one line that says what is wrong, where, and what would be right."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from broken_inputs import (
    ENVIRONMENT,
    ROWS,
    Capture,
    edited,
    good_arrays,
    one_episode,
    refused_run,
    saved,
    with_info,
)
from gymnasium import spaces
from minari.serialization import serialize_space
from tiny_runs import call, record, run_arguments

from unio4_lib.sources.minari_source import datasets_root


@pytest.fixture(autouse=True)
def offline(isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_unbroken_dataset_is_fine(tmp_path: Path, capsys: Capture) -> None:
    arguments = run_arguments(saved(tmp_path), tmp_path / "runs")
    assert call(capsys, *arguments, "--quiet")[0] == 0


SOURCES = {
    "unknown scheme": ("hdf5:mine", ["'hdf5:mine'", "unknown scheme", "minari:<dataset id>"]),
    "no scheme": ("hopper-medium", ["unknown scheme", "d4rl:<file.hdf5>"]),
    "nothing named": ("minari:", ["nothing after the colon", "minari:<dataset id>"]),
    "missing dataset": (
        "minari:no/such-v0",
        ["minari:no/such-v0", "no dataset is here", "unio4 dataset collect"],
    ),
    "missing file": ("d4rl:nowhere/hopper.hdf5", ["nowhere/hopper.hdf5: no such file"]),
    "missing folder": ("transitions:nowhere", ["nowhere: no such folder", "Transitions.save"]),
    "unknown option": ("d4rl:a.hdf5?antmase=true", ["unknown option 'antmase'", "did you mean antmaze?"]),
    "option without value": ("d4rl:a.hdf5?antmaze", ["'antmaze' must be given once", "antmaze=<value>"]),
    "no bucket": ("s3://", ["expected s3://<bucket>/<prefix>"]),
    "bad level": ("collect:Hopper-v5?level=great", ["level=great", "must be one of random, medium"]),
    "bad number": ("collect:Hopper-v5?steps=0", ["steps=0", "from 1 to"]),
    "level and target": (
        "collect:Hopper-v5?level=medium&target=9",
        ["level=medium and target=9", "one of the two"],
    ),
    "unknown environment": (
        "collect:Hoper-v5?level=random&steps=20",
        ["environment 'Hoper-v5' is not registered", "did you mean 'Hopper-v5'?"],
    ),
    "keyword of no environment": (
        "collect:Hopper-v5?level=random&steps=20&env.gravitation=3",
        ["env_kwargs do not fit 'Hopper-v5'", "gravitation"],
    ),
    "discrete actions": (
        "collect:CartPole-v1?level=random&steps=20",
        ["'CartPole-v1' has action space Discrete(2)", "continuous Box"],
    ),
    "unreachable target": (
        f"collect:{ENVIRONMENT}?target=900&train_steps=2048&steps=20",
        ["expected target=900", "more train_steps"],
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_source(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    source, words = SOURCES[kind]
    refused_run(capsys, tmp_path, source, *words)
    assert not list(datasets_root().rglob("*.hdf5"))


ROWS_OF_DATA: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "NaN": (
        lambda: edited("rewards", 7, np.nan),
        ["rewards: row 7 is nan", "finite"],
    ),
    "infinity": (
        lambda: edited("observations", 20, np.inf),
        ["observations: row 20, dimension 0 is inf", "finite"],
    ),
    "action out of bounds": (
        lambda: edited("actions", 5, 3.5),
        ["actions: row 5, dimension 0 is 3.5", "[-3, 3]", "clip_actions=true"],
    ),
    "unequal lengths": (
        lambda: {"rewards": good_arrays()["rewards"][:-1]},
        ["rewards: 59 rows, but observations has 60"],
    ),
    "wrong shape": (
        lambda: {"actions": good_arrays()["actions"][:, 0]},
        ["actions", "[60]"],
    ),
    "successors of another width": (
        lambda: {"next_observations": good_arrays()["next_observations"][:, :3]},
        ["next_observations: 3 dimensions, but observations has 4"],
    ),
    "a successor from elsewhere": (
        lambda: edited("next_observations", 3, 9.0),
        ["next_observations: row 3, dimension 0 is 9", "observations of row 4"],
    ),
    "an end in the middle": (
        lambda: edited("terminals", 3, True),
        ["row 3", "terminals"],
    ),
    "no rows": (
        lambda: (
            {name: array[:0] for name, array in good_arrays().items() if name != "info"}
            | {"episode_offsets": np.array([0])}
        ),
        ["no rows", "at least one transition"],
    ),
    "one short episode": (
        lambda: one_episode(5),
        ["5 rows of one episode", "holdout_fraction=0.05", "at least two episodes"],
    ),
    "one row": (
        lambda: one_episode(1),
        ["1 rows of one episode"],
    ),
    "environment not installed": (
        lambda: with_info(env_id="Nowhere-v0"),
        ["dataset transitions:", "environment 'Nowhere-v0' is not registered"],
    ),
    "observations of another environment": (
        lambda: with_info(env_id="Hopper-v5"),
        ["observations of size 4", "environment Hopper-v5 has 11", "must be equal"],
    ),
    "actions of another environment": (
        lambda: {
            "actions": np.zeros((ROWS, 2), np.float32),
            **with_info(action_low=(-3.0, -3.0), action_high=(3.0, 3.0)),
        },
        ["actions of size 2", f"{ENVIRONMENT} has 1"],
    ),
    "bounds beyond the environment's": (
        lambda: with_info(action_low=(-5.0,), action_high=(5.0,)),
        ["action bounds [-5, 5]", f"{ENVIRONMENT} are [-3, 3]", "must lie within"],
    ),
    "keywords of another environment": (
        lambda: with_info(env_kwargs={"gravitation": 3}),
        ["env_kwargs do not fit", "gravitation"],
    ),
}


@pytest.mark.parametrize("kind", ROWS_OF_DATA)
def test_dataset(kind: str, tmp_path: Path, capsys: Capture) -> None:
    broken, words = ROWS_OF_DATA[kind]
    refused_run(capsys, tmp_path, saved(tmp_path, **broken()), *words)


@pytest.mark.parametrize("rows", ["several episodes", "one episode"])
def test_no_range_of_returns_to_scale_by_is_no_error(rows: str, tmp_path: Path, capsys: Capture) -> None:
    constant = {"rewards": np.ones(ROWS, np.float32)}
    source = saved(tmp_path, **(constant if rows == "several episodes" else one_episode(ROWS)))
    arguments = run_arguments(source, tmp_path / "runs", prepare__reward_scaling="normal")
    code, _, err = call(capsys, *arguments)
    assert err.count("reward_scaling=normal leaves such rewards unscaled") == 1
    assert code == 0, err


def test_missing_robotics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    source = saved(tmp_path, **with_info(env_id="AdroitHandPen-v1"))
    refused_run(capsys, tmp_path, source, "'AdroitHandPen-v1'", 'pip install "unio4[robotics]"')


@pytest.mark.parametrize(
    ("key", "space", "words"),
    [
        ("action_space", spaces.Discrete(3), ["Discrete(3)", "only continuous (Box) actions"]),
        ("observation_space", spaces.Box(0, 255, (8, 8, 3), np.uint8), ["[8, 8, 3] images", "vector"]),
        ("observation_space", spaces.Text(5), ["observation_space: Text", "Box"]),
    ],
    ids=["discrete actions", "images", "text"],
)
def test_spaces_of_a_minari_dataset(
    key: str, space: spaces.Space[Any], words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    source = record(datasets_root(), steps=40)
    path = datasets_root() / source.removeprefix("minari:") / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: serialize_space(space)}))
    refused_run(capsys, tmp_path, source, source, *words)


@pytest.mark.parametrize("name", ["metadata.json", "main_data.hdf5"])
def test_damaged_minari_dataset(name: str, tmp_path: Path, capsys: Capture) -> None:
    source = record(datasets_root(), steps=40)
    path = datasets_root() / source.removeprefix("minari:") / "data" / name
    path.write_bytes(path.read_bytes()[:100])
    refused_run(
        capsys, tmp_path, source, name, "dataset again" if name.endswith("json") else "not a readable"
    )


@pytest.mark.parametrize("name", ["transitions.safetensors", "info.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_folder_of_arrays(name: str, damage: str, tmp_path: Path, capsys: Capture) -> None:
    source = saved(tmp_path)
    path = tmp_path / "data" / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused_run(capsys, tmp_path, source, str(path), "no such file" if damage == "gone" else "again")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"observations": (30, 11), "actions": (30, 3), "terminals": (30,)}, ["no rewards in the file"]),
        (
            {"observations": (30, 11), "actions": (30, 3), "rewards": (30,), "terminals": (30,)},
            ["neither next_observations nor timeouts", "max_episode_steps"],
        ),
        (
            {"observations": (30, 11), "actions": (29, 3), "rewards": (30,), "terminals": (30,)},
            ["actions: 29 rows, but observations has 30"],
        ),
    ],
    ids=["no rewards", "no ends", "unequal lengths"],
)
def test_d4rl_file(
    fields: dict[str, tuple[int, ...]], words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "hopper-mine.hdf5"
    with h5py.File(path, "w") as file:
        for name, shape in fields.items():
            file[name] = np.zeros(shape, np.float32)
    refused_run(capsys, tmp_path, f"d4rl:{path}", str(path), *words)


def test_file_that_is_no_hdf5(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "hopper.hdf5"
    path.write_text("not at all")
    refused_run(capsys, tmp_path, f"d4rl:{path}", "not a readable HDF5 file")
