import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from unio4_lib.errors import InputError
from unio4_lib.sources import minari_source
from unio4_lib.sources.grammar import load_transitions

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTIONS = spaces.Box(-2.0, 2.0, (2,), np.float32)
NESTED = spaces.Dict(
    {
        "goal": spaces.Box(-1, 1, (2,), np.float32),
        "achieved": spaces.Box(-9, 9, (2, 2), np.float64),
        "mode": spaces.Discrete(3, start=1),
        "pair": spaces.Tuple([spaces.Box(0, 1, (1,), np.float32), spaces.MultiBinary(2)]),
    }
)
LENGTHS = (5, 1, 3)


def stack(space: spaces.Space[Any], samples: list[Any]) -> Any:
    """Samples of a space as Minari stores them: nested containers of arrays."""
    if isinstance(space, spaces.Dict):
        return {key: stack(part, [sample[key] for sample in samples]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(part, [sample[i] for sample in samples]) for i, part in enumerate(space.spaces))
    return np.stack([np.asarray(sample) for sample in samples])


def write(
    space: spaces.Space[Any] = BOX,
    data_format: str = "hdf5",
    actions: spaces.Space[Any] = ACTIONS,
    **extra: Any,
) -> list[tuple[list[Any], EpisodeBuffer]]:
    """``test/set-v0`` with three episodes: terminated, truncated and cut off without a mark."""
    space.seed(0)
    actions.seed(0)
    episodes = []
    for number, length in enumerate(LENGTHS):
        samples = [space.sample() for _ in range(length + 1)]
        ends = np.arange(length) == length - 1
        buffer = EpisodeBuffer(
            id=number,
            observations=stack(space, samples),
            actions=np.stack([actions.sample() for _ in range(length)]),
            rewards=np.arange(length, dtype=np.float64) + number,
            terminations=ends if number == 0 else np.zeros(length, np.bool_),
            truncations=ends if number == 1 else np.zeros(length, np.bool_),
        )
        episodes.append((samples, buffer))
    settings: dict[str, Any] = {"env": gym.spec("Hopper-v5"), **extra}
    minari.create_dataset_from_buffers(
        "test/set-v0",
        [buffer for _, buffer in episodes],
        observation_space=space,
        action_space=actions,
        data_format=data_format,
        algorithm_name="a test",
        author="a test",
        author_email="test@example.org",
        code_permalink="https://example.org",
        description="a test",
        **settings,
    )
    return episodes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("space", [BOX, NESTED], ids=["box", "nested"])
def test_episodes_arrive_and_successors_stay_inside(space: spaces.Space[Any], data_format: str) -> None:
    episodes = write(space, data_format)
    data = load_transitions("minari:test/set-v0")
    np.testing.assert_array_equal(data.episode_lengths(), LENGTHS)
    for number, (samples, buffer) in enumerate(episodes):
        rows = slice(data.episode_offsets[number], data.episode_offsets[number + 1])
        flat = np.stack([spaces.flatten(space, sample) for sample in samples]).astype(np.float32)
        np.testing.assert_array_equal(data.observations[rows], flat[:-1])
        np.testing.assert_array_equal(data.next_observations[rows], flat[1:])
        np.testing.assert_array_equal(data.actions[rows], buffer.actions)
        np.testing.assert_array_equal(data.rewards[rows], buffer.rewards)
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [4])
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), [5, 8])


@pytest.mark.filterwarnings("ignore")
def test_facts_from_the_metadata() -> None:
    spec = copy.deepcopy(gym.spec("Hopper-v5"))  # what spec returns is the registry's own
    spec.kwargs = {"terminate_when_unhealthy": False}
    write(env=spec, ref_min_score=-5.0, ref_max_score=50.0)
    info = load_transitions("minari:test/set-v0").info
    assert (info.env_id, info.env_kwargs) == ("Hopper-v5", {"terminate_when_unhealthy": False})
    assert (info.ref_min_score, info.ref_max_score) == (-5, 50)
    assert (info.action_low, info.action_high) == ((-2, -2), (2, 2))
    assert info.extra["max_episode_steps"] == 1000
    assert info.source == "minari:test/set-v0"
    other = load_transitions("minari:test/set-v0?env=Walker2d-v5").info
    assert (other.env_id, other.env_kwargs) == ("Walker2d-v5", {})


@pytest.mark.filterwarnings("ignore")
def test_scores_of_d4rl_are_the_reference_where_the_dataset_has_none() -> None:
    write()
    info = load_transitions("minari:test/set-v0").info
    assert (info.ref_min_score, info.ref_max_score) == (-20.272305, 3234.3)
    assert info.extra["score_reference"] == "D4RL"


@pytest.mark.filterwarnings("ignore")
def test_discrete_actions_are_refused() -> None:
    write(actions=spaces.Discrete(3))
    with pytest.raises(InputError, match="only continuous"):
        load_transitions("minari:test/set-v0")


def data_folder(root: Path) -> Path:
    return root / "test" / "set-v0" / "data"


def edit_metadata(root: Path, **changes: Any) -> None:
    path = data_folder(root) / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def edit_file(root: Path, kind: str) -> None:
    with h5py.File(data_folder(root) / "main_data.hdf5", "a") as file:
        if kind == "no episode":
            del file["episode_1"]
        elif kind == "no rewards":
            del file["episode_2/rewards"]
        elif kind == "episode without rows":
            for name in ("rewards", "actions", "terminations", "truncations"):
                values = file[f"episode_1/{name}"][:0]
                del file[f"episode_1/{name}"]
                file[f"episode_1/{name}"] = values
        elif kind == "short observations":
            values = file["episode_0/observations"][:-1]
            del file["episode_0/observations"]
            file["episode_0/observations"] = values
        elif kind == "wide observations":
            del file["episode_0/observations"]
            file["episode_0/observations"] = np.zeros((6, 4))
        elif kind == "short actions":
            del file["episode_0/actions"]
            file["episode_0/actions"] = np.zeros((4, 2), np.float32)
        elif kind == "NaN":
            file["episode_2/observations"][1, 2] = np.nan
        elif kind == "beyond float32":
            file["episode_2/rewards"][0] = 1e60
        elif kind == "action out of bounds":
            file["episode_2/actions"][0, 1] = 2.5
        elif kind == "terminal inside":
            file["episode_0/terminations"][2] = True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no episode", "no episode_1"),
        ("no rewards", "no rewards in /episode_2"),
        ("episode without rows", "episode 1 has no rows"),
        ("short observations", "observations: 5 rows in"),
        ("wide observations", r"observations: shape \[6, 4\] in /episode_0, must be \[6, 3\]"),
        ("short actions", "actions: 4 rows in episode 0, must be 5"),
        ("NaN", "observations: row 7, dimension 2 is nan"),
        ("beyond float32", "rewards: row 6 is inf"),
        ("action out of bounds", r"actions: row 6, dimension 1 is 2.5, must be within \[-2, 2\]"),
        ("terminal inside", "terminals: row 2 is marked, but episode 0 goes on to row 4"),
    ],
)
def test_broken_data_is_named(kind: str, words: str, minari_root: Path) -> None:
    write()
    edit_file(minari_root, kind)
    with pytest.raises(InputError, match=words) as caught:
        load_transitions("minari:test/set-v0")
    assert "\n" not in str(caught.value)
    assert "minari:test/set-v0" in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"total_steps": 8}, "more rows than the 8 of total_steps"),
        ({"total_steps": 10}, "3 episodes and 9 rows, but the metadata says 3 and 10"),
        ({"total_episodes": 0}, "total_episodes is 0"),
        ({"env_spec": None}, r"no env_spec; add \?env="),
        ({"env_spec": "{"}, "env_spec is not JSON"),
        ({"observation_space": None}, "no observation_space"),
        ({"observation_space": '{"type": "Strange"}'}, "observation_space cannot be read"),
        (
            {"observation_space": '{"type": "Text", "max_length": 4, "min_length": 1, "charset": "a"}'},
            "Text; Box,",
        ),
        ({"data_format": "tape"}, "data_format of test/set-v0 is 'tape'"),
    ],
)
def test_broken_metadata_is_named(changes: dict[str, Any], words: str, minari_root: Path) -> None:
    write()
    edit_metadata(minari_root, **changes)
    with pytest.raises(InputError, match=words) as caught:
        load_transitions("minari:test/set-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [b"not HDF5 at all", b""])
def test_a_file_that_is_no_hdf5(content: bytes, minari_root: Path) -> None:
    write()
    (data_folder(minari_root) / "main_data.hdf5").write_bytes(content)
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        load_transitions("minari:test/set-v0")


@pytest.mark.filterwarnings("ignore")
def test_missing_dataset_names_the_nearest_and_the_place(minari_root: Path) -> None:
    write()
    with pytest.raises(InputError, match=r"nearest here: test/set-v0") as caught:
        load_transitions("minari:test/sett-v0", download=False)
    assert str(minari_root) in str(caught.value)


def test_failed_download_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(dataset_id: str) -> None:
        print("progress of Minari")  # noqa: T201
        raise ConnectionError(f"cannot reach the server\nfor {dataset_id}")

    monkeypatch.setattr(minari, "download_dataset", fail)
    with pytest.raises(
        InputError, match=r"no dataset is here.*download failed: cannot reach the server for"
    ) as caught:
        load_transitions("minari:mujoco/hopper/medium-v0")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore")
def test_download_is_asked_for_a_missing_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minari, "download_dataset", lambda dataset_id: write())
    assert load_transitions("minari:test/set-v0").num_episodes == 3


@pytest.mark.filterwarnings("ignore")
def test_summary_reads_the_mean_return(monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    summary = minari_source.summarize_episodes("test/set-v0", minari_source.read_metadata("test/set-v0"))
    assert summary["mean_return"] == pytest.approx((10 + 1 + 9) / 3)
    assert (summary["episodes"], summary["steps"], summary["env_id"]) == (3, 9, "Hopper-v5")
    monkeypatch.setattr(minari_source, "SUMMARY_EPISODES", 2)
    summary = minari_source.summarize_episodes("test/set-v0", minari_source.read_metadata("test/set-v0"))
    assert (summary["mean_return"], summary["returns_read"]) == (pytest.approx((10 + 9) / 2), 2)
