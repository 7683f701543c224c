"""Recording: ordinary Minari datasets, complete or absent, and the same for the same request."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from unio4_lib.errors import InputError
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim.base import StepResult
from unio4_lib.sources import collect as module
from unio4_lib.sources.collect import Behavior, Recording, _medium, _thinned, collect
from unio4_lib.sources.collect_spec import CollectSpec

TINY = CollectSpec("InvertedPendulum-v5", "expert", steps=500, train_steps=4096)


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_a_recorded_dataset_is_an_ordinary_minari_dataset() -> None:
    dataset_id = collect(TINY)
    assert dataset_id.startswith("unio4/invertedpendulum/expert-s0-")
    dataset = minari.load_dataset(dataset_id)
    assert dataset.id == dataset_id
    assert dataset.total_steps == 500
    env = dataset.recover_environment()
    assert env.spec is not None and env.spec.id == "InvertedPendulum-v5"
    for episode in dataset:
        steps = len(episode.rewards)
        assert episode.observations.shape == (steps + 1, 4)
        assert episode.actions.shape == (steps, 1)
        assert episode.actions.dtype == np.float32
        assert all(env.action_space.contains(action) for action in episode.actions)
        ends = episode.terminations | episode.truncations
        assert ends[-1] and not ends[:-1].any()
        assert not (episode.terminations & episode.truncations).any()
    env.close()


def test_the_record_replays_in_the_environment() -> None:
    """Every step of an episode follows from the one before: the environment saw the recorded actions."""
    dataset = minari.load_dataset(collect(TINY))
    env = gymnasium.make("InvertedPendulum-v5")
    env.reset(seed=0)
    episode = max(dataset, key=len)
    # The integrator's warm start is not part of an observation: equal to solver tolerance only.
    for observation, action, successor in zip(
        episode.observations[:-1], episode.actions, episode.observations[1:], strict=True
    ):
        env.unwrapped.set_state(observation[:2], observation[2:])  # type: ignore[attr-defined]
        np.testing.assert_allclose(env.step(action)[0], successor, atol=1e-6)
    env.close()


def test_the_same_request_is_answered_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect(TINY)
    monkeypatch.setattr(module, "_record", None)  # calling it would fail
    assert collect(TINY) == first
    monkeypatch.undo()


def test_another_request_has_another_name() -> None:
    changes = [{"seed": 1}, {"steps": 501}, {"train_steps": 9}, {"noise": 0.1}, {"env_kwargs": {"a": 1}}]
    names = {module._dataset_id(TINY)} | {module._dataset_id(replace(TINY, **change)) for change in changes}  # type: ignore[arg-type]
    assert len(names) == len(changes) + 1


def test_equal_seeds_record_equal_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = []
    for name in ("a", "b"):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / name))
        (tmp_path / name).mkdir()
        records.append([episode.observations for episode in minari.load_dataset(collect(TINY))])
    assert len(records[0]) == len(records[1])
    assert all(np.array_equal(left, right) for left, right in zip(*records, strict=True))


def test_no_default_of_fine_tuning_shapes_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting that the training reads has a value of its own here."""
    read: set[str] = set()

    class Watched(FinetuneConfig):
        def __getattribute__(self, name: str) -> Any:
            if name in FinetuneConfig.__pydantic_fields__:
                read.add(name)
            return super().__getattribute__(name)

    pinned = module.COLLECT_CONFIG
    monkeypatch.setattr(module, "COLLECT_CONFIG", Watched(**dict(pinned)))
    read.clear()
    collect(TINY)
    assert "clip" in read
    assert read <= pinned.model_fields_set


def test_nothing_remains_of_a_write_that_fails(monkeypatch: pytest.MonkeyPatch, datasets: Path) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as context:
        context.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", fail)
        with pytest.raises(OSError, match="disk full"):
            collect(TINY)
    assert minari.list_local_datasets() == {}
    assert not list(datasets.rglob("metadata.json"))
    assert minari.load_dataset(collect(TINY)).total_steps == 500


@pytest.mark.parametrize("level", ["random", "medium", "medium-expert"])
def test_every_level_records_the_steps_asked_for(level: str) -> None:
    spec = replace(TINY, level=level)  # type: ignore[arg-type]
    assert minari.load_dataset(collect(spec)).total_steps == 500


def test_medium_replay_is_training_experience_from_beginning_to_end() -> None:
    dataset = minari.load_dataset(collect(replace(TINY, level="medium-replay", steps=2000)))
    assert 1500 < dataset.total_steps < 2500
    returns = [episode.rewards.sum() for episode in dataset]
    quarter = len(returns) // 4
    assert np.mean(returns[-quarter:]) > np.mean(returns[:quarter])  # it learned on the way


def test_thinning_keeps_whole_episodes_of_the_whole_training() -> None:
    episodes = [EpisodeBuffer(id=i, rewards=[0.0] * 10) for i in range(20)]
    assert [e.id for e in _thinned(episodes, 50)] == [0, 5, 10, 14, 19]
    assert _thinned(episodes, 200) == episodes


def test_a_target_out_of_reach_is_an_input_error() -> None:
    spec = replace(TINY, level="target", target_return=5000.0)
    with pytest.raises(InputError, match="expected target=5000: ask for less, or for more train_steps"):
        collect(spec)
    with pytest.raises(InputError, match="target return belongs to level=target"):
        collect(replace(TINY, target_return=3.0))


def test_a_recording_is_cut_into_episodes() -> None:
    """Two environments, five steps; the first dies at step 2, the second runs out of time at step 4."""
    recording = Recording()
    for t in range(5):
        before = np.array([[10.0 * t], [10.0 * t + 1]])
        flags = np.array([t == 1, False]), np.array([False, t == 3])
        recording(before, before / 100, StepResult(before + 10, before[:, 0], before + 10, *flags))
    episodes = recording.episodes()
    assert [len(e) for e in episodes] == [2, 4, 3, 1]
    first, second = episodes[0], episodes[1]
    assert np.array_equal(np.ravel(first.observations), [0, 10, 20])
    assert list(first.terminations) == [False, True] and not any(first.truncations)
    assert not any(second.terminations) and list(second.truncations) == [False, False, False, True]
    assert all(e.truncations[-1] and not any(e.terminations) for e in episodes[2:])
    assert [len(e) for e in recording.episodes(rows=5)] == [2, 3]


def test_medium_without_a_reference_is_half_of_what_was_reached() -> None:
    policies = [GaussianPolicy(PolicySpec(1, 4, 1, (4,))) for _ in range(4)]
    checkpoints = list(zip([0.0, 45.0, 100.0, 90.0], policies, strict=True))
    medium = _medium(replace(TINY, level="medium"), Behavior(checkpoints, Recording(), True))
    assert medium is policies[1]
