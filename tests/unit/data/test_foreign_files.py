"""Files from elsewhere: nothing is read past a buffer, and nothing that lies outside the file."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from made_minari import SOURCE, STEPS, made_episode, made_minari, replace_field
from minari.serialization import serialize_space

from unio4_lib.errors import InputError
from unio4_lib.sources import minari_source
from unio4_lib.sources.grammar import load_transitions

TEXT = np.array([b"0.5"] * STEPS)
OBJECTS = np.array(["0"] * STEPS, dtype=object)
PAIRS = np.zeros(STEPS, np.dtype([("a", "f4"), ("b", "f4")]))
FIELDS = {
    "rewards [T, k]": ("rewards", np.ones((STEPS, 5000)), "rewards: shape [20, 5000] in /episode_1"),
    "rewards [k, T]": ("rewards", np.ones((1, STEPS)), "rewards: shape [1, 20] in /episode_1"),
    "one reward": ("rewards", 1.0, "rewards: shape [] in /episode_1, must be"),
    "rewards without a shape": ("rewards", h5py.Empty("f4"), "rewards: no shape in /episode_1"),
    "rewards of text": ("rewards", TEXT, "rewards: |S3 in /episode_1, must be numbers"),
    "rewards of objects": ("rewards", OBJECTS, "rewards: object in /episode_1, must be numbers"),
    "complex rewards": ("rewards", np.ones(STEPS, np.complex64), "rewards: complex64 in /episode_1"),
    "rewards of pairs": ("rewards", PAIRS, "must be numbers"),
    "terminations of text": ("terminations", OBJECTS, "terminations: object in /episode_1"),
    "terminations [T, 2]": ("terminations", np.zeros((STEPS, 2), np.bool_), "terminations: shape [20, 2]"),
    "truncations too few": ("truncations", np.zeros(3, np.bool_), "truncations: 3 rows in episode 1"),
    "a single truncation": ("truncations", True, "truncations: 0 rows in episode 1"),
    "complex actions": ("actions", np.ones((STEPS, 1), np.complex64), "actions: complex64"),
    "actions of text": ("actions", TEXT, "actions: |S3 in /episode_1, must be numbers"),
    "actions [T, 1, 1, 2]": ("actions", np.ones((STEPS, 1, 2)), "actions: shape [20, 1, 2]"),
    "one action": ("actions", 0.5, "actions: 0 rows in episode 1"),
    "observations of text": ("observations", np.full((STEPS + 1, 4), b"a"), "observations: |S1"),
    "complex observations": (
        "observations",
        np.ones((STEPS + 1, 4), np.complex128),
        "observations: complex128",
    ),
    "observations [T]": ("observations", np.ones(STEPS + 1), "observations: shape [21]"),
    "one observation": ("observations", 1.0, "observations: 0 rows in /episode_1/observations, must be 21"),
}


def refused_line(source: str) -> str:
    with pytest.raises(InputError) as caught:
        load_transitions(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_that_is_no_vector_of_numbers_is_refused(kind: str, minari_root: Path) -> None:
    name, values, words = FIELDS[kind]
    replace_field(made_minari(minari_root), name, values)
    assert words in refused_line(SOURCE)


def test_columns_of_one_are_vectors(minari_root: Path) -> None:
    data = made_minari(minari_root)
    plain = load_transitions(SOURCE)
    for name in ("rewards", "terminations", "truncations"):
        with h5py.File(data / "main_data.hdf5") as file:
            values = file[f"episode_1/{name}"][()][:, None]
        replace_field(data, name, values)
    assert load_transitions(SOURCE).digest() == plain.digest()


def test_more_than_memory_is_refused_before_it_is_asked_for(minari_root: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        file.create_dataset("observations", (10**12, 11), "f4", chunks=(1000, 11))
    assert "44,000.0 GB, but this machine has" in refused_line(f"d4rl:{tmp_path / 'hopper.hdf5'}")
    made_minari(minari_root, total_steps=10**12)
    assert "total_steps: 40,000.0 GB" in refused_line(SOURCE)


def a_secret(folder: Path) -> Path:
    path = folder / "secret.hdf5"
    with h5py.File(path, "w") as file:
        file["rewards"] = np.arange(STEPS, dtype=np.float32)
        file["episode/rewards"] = np.arange(STEPS, dtype=np.float32)
    return path


def external_storage(group: h5py.Group, secret: Path) -> None:
    group.create_dataset("rewards", (STEPS,), "u1", external=[(str(secret), 0, STEPS)])


def virtual(group: h5py.Group, secret: Path) -> None:
    layout = h5py.VirtualLayout((STEPS,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "rewards", (STEPS,))
    group.create_virtual_dataset("rewards", layout)


def external_link(group: h5py.Group, secret: Path) -> None:
    group["rewards"] = h5py.ExternalLink(str(secret), "/rewards")


def soft_link_through_an_external_one(group: h5py.Group, secret: Path) -> None:
    group.file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
    group["rewards"] = h5py.SoftLink("/elsewhere/rewards")


def link_to_nothing(group: h5py.Group, secret: Path) -> None:
    group["rewards"] = h5py.SoftLink("/nowhere")


DETOURS = [external_storage, virtual, external_link, soft_link_through_an_external_one, link_to_nothing]


@pytest.mark.parametrize("detour", DETOURS)
def test_what_lies_outside_a_minari_file_is_not_read(
    detour: Callable[[h5py.Group, Path], None], minari_root: Path, tmp_path: Path
) -> None:
    data = made_minari(minari_root)
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        detour(file["episode_1"], a_secret(tmp_path))
    line = refused_line(SOURCE)
    assert "/episode_1/rewards" in line and "copy the data itself into the file" in line


def test_an_episode_outside_the_file_is_not_read(minari_root: Path, tmp_path: Path) -> None:
    data = made_minari(minari_root)
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink(str(a_secret(tmp_path)), "/episode")
    assert "/episode_1 is a link" in refused_line(SOURCE)


@pytest.mark.parametrize("detour", DETOURS)
def test_what_lies_outside_a_d4rl_file_is_not_read(
    detour: Callable[[h5py.Group, Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        for name, shape in (("observations", (STEPS, 11)), ("actions", (STEPS, 3)), ("terminals", (STEPS,))):
            file[name] = np.zeros(shape, np.float32)
        file["timeouts"] = np.arange(STEPS) == STEPS - 1
        detour(file["/"], a_secret(tmp_path))
    line = refused_line(f"d4rl:{path}")
    assert f"{path}: /rewards" in line and "copy the data itself into the file" in line


@pytest.mark.parametrize("name", ["timeouts", "next_observations"])
def test_an_optional_field_outside_the_file_is_not_absent(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hopper.hdf5"
    fields: dict[str, Any] = {"observations": (STEPS, 11), "actions": (STEPS, 3), "rewards": (STEPS,)}
    with h5py.File(path, "w") as file:
        for field, shape in (fields | {"terminals": (STEPS,)}).items():
            file[field] = np.zeros(shape, np.float32)
        file[name] = h5py.ExternalLink("nowhere.hdf5", "/rewards")
    assert f"/{name} is a link" in refused_line(f"d4rl:{path}?max_episode_steps=5")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("rewards", np.ones((STEPS, 3)), "rewards in episode 0: shape [20, 3], must be [20] or [20, 1]"),
        ("rewards", [[0.0], [1.0, 2.0], *[[0.0]] * 18], "rewards in episode 0: no array"),
        ("actions", OBJECTS, "actions in episode 0: object, must be numbers"),
        ("terminations", TEXT, "terminations in episode 0: |S3, must be numbers"),
        ("observations", np.ones((STEPS + 1, 1)), "observations: shape [21, 1], must be [21, 4]"),
    ],
)
def test_arrow_rows_that_do_not_fit_are_refused(
    name: str, values: Any, words: str, minari_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_minari(minari_root, data_format="arrow")
    episode = SimpleNamespace(**{**made_episode(0), name: values})
    monkeypatch.setattr(minari_source, "_iterate_arrow", lambda dataset_id: iter([episode]))
    assert words in refused_line(SOURCE)


@pytest.mark.parametrize("error", [KeyError("rewards"), TypeError("no"), AttributeError("field")])
def test_arrow_files_that_cannot_be_read_are_one_line(
    error: Exception, minari_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(dataset_id: str) -> None:
        raise error

    monkeypatch.setattr(minari, "load_dataset", fail)
    made_minari(minari_root, data_format="arrow")
    assert "its arrow files cannot be read" in refused_line(SOURCE)


def test_a_state_outside_its_space_is_refused(minari_root: Path) -> None:
    data = made_minari(minari_root, observation_space=serialize_space(spaces.Discrete(3)))
    for episode in range(3):
        replace_field(data, "observations", np.full(STEPS + 1, 3), episode)
    assert "observations: 3 is not in Discrete(3)" in refused_line(SOURCE)
