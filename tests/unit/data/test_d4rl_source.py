from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from unio4_lib.errors import InputError
from unio4_lib.sources.grammar import load_transitions

LENGTHS = (4, 6, 1, 6, 3)
ENDS = np.cumsum(LENGTHS) - 1
TERMINAL = (True, False, True, False, False)  # the last episode is cut off by the end of the file


def content(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    states = [generator.normal(size=(length + 1, 3)) for length in LENGTHS]
    rows = sum(LENGTHS)
    terminals, timeouts = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    terminals[ENDS[list(TERMINAL)]] = True
    timeouts[ENDS[[1, 3]]] = True
    return {
        "observations": np.concatenate([part[:-1] for part in states]),
        "actions": generator.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        "rewards": generator.normal(size=rows),
        "next_observations": np.concatenate([part[1:] for part in states]),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def write(path: Path, arrays: dict[str, Any]) -> str:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return f"d4rl:{path}"


def without(arrays: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name not in names}


@pytest.mark.parametrize("missing", [(), ("timeouts",)])
def test_with_next_observations_every_row_is_kept(missing: tuple[str, ...], tmp_path: Path) -> None:
    arrays = content()
    data = load_transitions(write(tmp_path / "hopper_medium-v2.hdf5", without(arrays, *missing)))
    np.testing.assert_array_equal(data.episode_lengths(), LENGTHS)
    np.testing.assert_array_equal(data.next_observations, arrays["next_observations"].astype(np.float32))
    np.testing.assert_array_equal(data.rewards, arrays["rewards"].astype(np.float32))
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), ENDS[list(TERMINAL)])
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), ENDS[[1, 3, 4]])
    assert data.info.extra["ends_found_by_jump"] == (2 if missing else 0)


@pytest.mark.parametrize("missing", [(), ("timeouts",)])
def test_without_next_observations_rows_without_a_successor_go(
    missing: tuple[str, ...], tmp_path: Path
) -> None:
    arrays = content()
    query = "?max_episode_steps=6" if missing else ""
    source = write(tmp_path / "hopper_medium-v2.hdf5", without(arrays, "next_observations", *missing))
    data = load_transitions(source + query)
    # Terminal episodes stay whole, the others lose their last row.
    np.testing.assert_array_equal(data.episode_lengths(), [4, 5, 1, 5, 2])
    kept = np.setdiff1d(np.arange(20), ENDS[[1, 3, 4]])
    np.testing.assert_array_equal(data.observations, arrays["observations"][kept].astype(np.float32))
    terminals = data.terminals
    np.testing.assert_array_equal(data.next_observations[terminals], data.observations[terminals])
    true_successors = arrays["next_observations"][kept].astype(np.float32)
    np.testing.assert_array_equal(data.next_observations[~terminals], true_successors[~terminals])
    assert data.num_episodes == np.count_nonzero(data.terminals | data.timeouts)


def test_an_episode_of_one_row_without_a_successor_disappears(tmp_path: Path) -> None:
    arrays = without(content(), "next_observations")
    arrays["timeouts"] = arrays["timeouts"].copy()
    arrays["timeouts"][18] = True  # the episode after it is the last row alone
    data = load_transitions(write(tmp_path / "hopper_a.hdf5", arrays))
    np.testing.assert_array_equal(data.episode_lengths(), [4, 5, 1, 5, 1])


def test_max_episode_steps_counts_from_each_end(tmp_path: Path) -> None:
    arrays = without(content(), "next_observations", "timeouts")
    data = load_transitions(write(tmp_path / "hopper_a.hdf5", arrays) + "?max_episode_steps=5")
    # 4 terminal | 5 + 2 terminal (rows 4..10) | 5 + 4 (rows 11..19); ends by time lose a row.
    np.testing.assert_array_equal(data.episode_lengths(), [4, 4, 2, 4, 3])


@pytest.mark.parametrize(
    ("name", "env_id", "score"),
    [
        ("hopper_medium-v2", "Hopper-v5", 3234.3),
        ("halfcheetah_random-v2", "HalfCheetah-v5", 12135.0),
        ("walker2d_full_replay-v2", "Walker2d-v5", 4592.3),
        ("pen-human-v1", "AdroitHandPen-v1", 3076.8331017826877),
    ],
)
def test_environment_from_the_file_name(name: str, env_id: str, score: float, tmp_path: Path) -> None:
    info = load_transitions(write(tmp_path / f"{name}.hdf5", content())).info
    assert (info.env_id, info.ref_max_score) == (env_id, score)
    assert (info.action_low, info.action_high) == ((-1, -1), (1, 1))


def test_environment_and_bounds_from_the_query(tmp_path: Path) -> None:
    source = write(tmp_path / "mine.hdf5", content())
    info = load_transitions(f"{source}?env=Ant-v5&action_low=-2&action_high=3").info
    assert (info.env_id, info.action_low, info.action_high) == ("Ant-v5", (-2, -2), (3, 3))


def test_antmaze_rebuilds_ends_from_jumps_and_rewards(tmp_path: Path) -> None:
    position = np.concatenate([np.linspace(0, 1, 40), np.linspace(50, 51, 30)])
    states = np.stack([position, position, np.random.default_rng(0).normal(size=70)], axis=1)
    arrays = {
        "observations": states,
        "actions": np.zeros((70, 2), np.float32),
        "rewards": (np.arange(70) == 39).astype(np.float32),
        "terminals": np.zeros(70),
        "timeouts": np.arange(70) % 10 == 0,  # out of step with the data
    }
    data = load_transitions(write(tmp_path / "antmaze.hdf5", arrays) + "?env=AntMaze_UMaze-v5&antmaze=true")
    np.testing.assert_array_equal(data.episode_lengths(), [39, 29])
    assert set(data.rewards.tolist()) == {-5.0}
    assert data.info.ref_max_score == 1


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_missing_key_is_named(name: str, tmp_path: Path) -> None:
    source = write(tmp_path / "hopper_a.hdf5", without(content(), name))
    with pytest.raises(InputError, match=f"no {name} in the file, which has"):
        load_transitions(source)


BAD_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"rewards": np.zeros(19)}, "rewards: 19 rows, but observations has 20"),
    "s' shape": ({"next_observations": np.zeros((20, 2))}, r"next_observations: shape \[20, 2\], must be"),
    "rank": (
        {"actions": np.zeros(20)},
        r"actions: float64 of shape \[20\], must be numbers of shape \[rows, dim",
    ),
    "rewards of several goals": (
        {"rewards": np.zeros((20, 2))},
        r"rewards: float64 of shape \[20, 2\], must be",
    ),
    "text": ({"rewards": np.array([b"a"] * 20)}, "rewards: .*must be numbers"),
    "bounds": ({"actions": np.full((20, 2), 1.5)}, "actions: row 0, dimension 0 is 1.5"),
    "NaN": ({"observations": np.full((20, 3), np.nan)}, "observations: row 0, dimension 0 is nan"),
    "empty": ({name: array[:0] for name, array in content().items()}, "no rows"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_give_one_line(kind: str, tmp_path: Path) -> None:
    changes, words = BAD_FILES[kind]
    source = write(tmp_path / "hopper_a.hdf5", {**content(), **changes})
    with pytest.raises(InputError, match=words) as caught:
        load_transitions(source)
    assert "\n" not in str(caught.value)


def test_other_mistakes(tmp_path: Path) -> None:
    no_ends = write(tmp_path / "hopper_a.hdf5", without(content(), "next_observations", "timeouts"))
    with pytest.raises(InputError, match=r"add \?max_episode_steps"):
        load_transitions(no_ends)
    with pytest.raises(InputError, match="no environment known for 'mine'"):
        load_transitions(write(tmp_path / "mine.hdf5", content()))
    with pytest.raises(InputError, match="no such file"):
        load_transitions(f"d4rl:{tmp_path}/hopper_none.hdf5")
    (tmp_path / "hopper_b.hdf5").write_text("this is text")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        load_transitions(f"d4rl:{tmp_path}/hopper_b.hdf5")


def test_clip_actions_in_place_of_refusing(tmp_path: Path) -> None:
    source = write(tmp_path / "hopper_a.hdf5", {**content(), "actions": np.full((20, 2), 1.5)})
    assert load_transitions(f"{source}?clip_actions=true").actions.max() == 1
    assert load_transitions(source, clip_actions=True).actions.max() == 1
