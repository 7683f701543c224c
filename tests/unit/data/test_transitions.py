import errno
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from unio4_lib.data import tensor_file, transitions
from unio4_lib.data.transitions import ARRAYS, INFO_FILE, TENSOR_FILE, Transitions, concatenate
from unio4_lib.errors import InputError

LENGTHS = (4, 1, 7, 3)


def assert_same(first: Transitions, second: Transitions) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
        assert getattr(first, name).dtype == getattr(second, name).dtype
    assert first.info == second.info


def test_sizes_and_episode_sums(make_transitions: Callable[..., Transitions]) -> None:
    data = make_transitions(LENGTHS)
    assert (data.num_transitions, data.num_episodes) == (15, 4)
    assert (data.observation_dim, data.action_dim) == (3, 2)
    np.testing.assert_array_equal(data.episode_lengths(), LENGTHS)
    np.testing.assert_array_equal(data.episode_offsets, [0, 4, 5, 12, 15])
    expected = [float(np.sum(part, dtype=np.float64)) for part in np.split(data.rewards, [4, 5, 12])]
    np.testing.assert_allclose(data.episode_returns(), expected, rtol=1e-12)


def test_normalized_score_is_0_at_the_low_and_100_at_the_high_reference(
    make_transitions: Callable[..., Transitions],
) -> None:
    info = make_transitions(LENGTHS).info
    assert (info.normalized(-1.0), info.normalized(3.0)) == (0, 100)
    assert replace(info, ref_min_score=None).normalized(1.0) is None


def test_build_copies_nothing_and_the_arrays_are_read_only(make_arrays: Callable[..., Any]) -> None:
    arrays = make_arrays(LENGTHS)
    data = Transitions.build(**arrays)
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(data, name)[0] = 0
    assert np.shares_memory(data.observations, arrays["observations"])
    assert arrays["observations"].flags.writeable  # the caller's own array stays as it was


def test_million_rows_build_and_save_without_a_copy(make_arrays: Callable[..., Any], tmp_path: Path) -> None:
    arrays = make_arrays((1000,) * 1000)
    size = sum(array.nbytes for name, array in arrays.items() if name != "info")
    tracemalloc.start()
    data = Transitions.build(**arrays)
    data.save(tmp_path / "big")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.35 * size, f"{peak / size:.2f} of the data"
    loaded = Transitions.load(tmp_path / "big")
    assert loaded.digest() == data.digest()


def test_select_episodes(make_transitions: Callable[..., Transitions]) -> None:
    data = make_transitions(LENGTHS)
    chosen = data.select_episodes([3, 0, 3])
    np.testing.assert_array_equal(chosen.episode_lengths(), [3, 4, 3])
    rows = [12, 13, 14, 0, 1, 2, 3, 12, 13, 14]
    np.testing.assert_array_equal(chosen.next_observations, data.next_observations[rows])
    assert_same(data.select_episodes(np.array([True, False, True, False])), data.select_episodes([0, 2]))
    Transitions.build(**{name: getattr(chosen, name) for name in ARRAYS}, info=chosen.info)


@pytest.mark.parametrize(
    ("indices", "words"), [([4], "no episode 4"), ([], "at least one"), ([0.5], "at least one")]
)
def test_select_episodes_refuses(
    indices: list[float], words: str, make_transitions: Callable[..., Transitions]
) -> None:
    with pytest.raises(InputError, match=words):
        make_transitions(LENGTHS).select_episodes(indices)


def test_concatenate_keeps_every_episode(make_transitions: Callable[..., Transitions]) -> None:
    first, second = make_transitions(LENGTHS), make_transitions((2, 2), seed=1)
    both = concatenate([first, second])
    assert both.num_episodes == 6
    assert_same(both.select_episodes(range(4)), replace(first, info=both.info))
    assert_same(both.select_episodes([4, 5]), replace(second, info=both.info))
    assert both.info.source == "test + test"


def test_concatenate_refuses_another_environment(make_transitions: Callable[..., Transitions]) -> None:
    first = make_transitions(LENGTHS)
    other = replace(first, info=replace(first.info, env_id="Walker2d-v5"))
    with pytest.raises(InputError, match="env_id of part 1 is Walker2d-v5"):
        concatenate([first, other])


def test_round_trip_is_mapped_and_keeps_the_digest(
    make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    data = make_transitions(LENGTHS)
    loaded = Transitions.load(data.save(tmp_path / "set"), verify=True)
    assert_same(data, loaded)
    assert loaded.digest() == data.digest()
    base: Any = loaded.observations
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not loaded.observations.flags.writeable


def test_files_are_ordinary_safetensors_both_ways(
    make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    data = make_transitions(LENGTHS)
    file = data.save(tmp_path / "set") / TENSOR_FILE
    theirs = safetensors.numpy.load_file(file)
    for name in ARRAYS:
        np.testing.assert_array_equal(theirs[name], getattr(data, name))
    safetensors.numpy.save_file(theirs, file, metadata={"by": "another writer"})
    assert_same(Transitions.load(tmp_path / "set", verify=True), data)


@pytest.mark.parametrize("change", ["rewards", "info"])
def test_digest_sees_every_change(change: str, make_transitions: Callable[..., Transitions]) -> None:
    data = make_transitions(LENGTHS)
    rewards = data.rewards.copy()
    rewards[-1] += 1
    other = (
        replace(data, rewards=rewards)
        if change == "rewards"
        else replace(data, info=replace(data.info, env_id="A"))
    )
    assert other.digest() != data.digest()


def test_digest_does_not_depend_on_the_type_of_bounds(
    make_arrays: Callable[..., Any], tmp_path: Path
) -> None:
    arrays = make_arrays(LENGTHS)
    arrays["info"] = replace(arrays["info"], action_low=(-1, np.float32(-1)))
    data = Transitions.build(**arrays)
    assert Transitions.load(data.save(tmp_path / "set")).digest() == data.digest()


def test_verify_finds_a_flipped_bit(make_transitions: Callable[..., Transitions], tmp_path: Path) -> None:
    file = make_transitions(LENGTHS).save(tmp_path / "set") / TENSOR_FILE
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="digest"):
        Transitions.load(tmp_path / "set", verify=True)


def test_save_refuses_a_folder_that_has_something(
    make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    data = make_transitions(LENGTHS)
    data.save(tmp_path / "set")
    with pytest.raises(InputError, match="exists already"):
        data.save(tmp_path / "set")


@pytest.mark.parametrize("writer", ["tensors", "info"])
def test_full_disk_leaves_nothing(
    writer: str, make_transitions: Callable[..., Transitions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    name = {"tensors": "write_tensors", "info": "_write_text"}[writer]
    monkeypatch.setattr(transitions, name, half)
    with pytest.raises(InputError, match="No space left on device") as caught:
        make_transitions(LENGTHS).save(tmp_path / "out" / "set")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def corrupt(folder: Path, kind: str) -> None:
    tensors, info = folder / TENSOR_FILE, folder / INFO_FILE
    content = tensors.read_bytes()
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_length])
    if kind == "truncated":
        tensors.write_bytes(content[:-5])
    elif kind == "truncated in the header":
        tensors.write_bytes(content[:20])
    elif kind == "empty":
        tensors.write_bytes(b"")
    elif kind == "no tensors":
        tensors.unlink()
    elif kind == "header no JSON":
        tensors.write_bytes(content[:8] + b"#" + content[9:])
    elif kind == "field missing":
        arrays = tensor_file.map_tensors(tensors)
        tensor_file.write_tensors(folder / "new", {n: a.copy() for n, a in arrays.items() if n != "rewards"})
        (folder / "new").replace(tensors)
    elif kind == "shape and bytes":
        header["rewards"]["shape"] = [3]
        text = json.dumps(header).encode()
        tensors.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + header_length :])
    elif kind == "no info":
        info.unlink()
    elif kind == "info no JSON":
        info.write_text("{")
    elif kind == "other version":
        info.write_text(info.read_text().replace('"version": 1', '"version": 99'))
    elif kind == "other format":
        info.write_text("{}")
    elif kind == "info incomplete":
        info.write_text(info.read_text().replace('"env_id"', '"environment"'))
    elif kind == "other count":
        info.write_text(info.read_text().replace('"transitions": 15', '"transitions": 16'))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "ends after .* bytes inside"),
        ("truncated in the header", "not a whole safetensors file"),
        ("empty", "not a whole safetensors file"),
        ("no tensors", "no such file"),
        ("header no JSON", "header is not JSON"),
        ("field missing", "no rewards"),
        ("shape and bytes", "shape and bytes of rewards disagree"),
        ("no info", "info.json: no such file"),
        ("info no JSON", "not JSON"),
        ("other version", "version 99, this release reads 1"),
        ("other format", "not the description of a dataset"),
        ("info incomplete", "'info' cannot be read"),
        ("other count", "15 transitions, but info.json says 16"),
    ],
)
def test_broken_folders_give_one_line(
    kind: str, words: str, make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    folder = make_transitions(LENGTHS).save(tmp_path / "set")
    corrupt(folder, kind)
    with pytest.raises(InputError, match=words) as caught:
        Transitions.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
