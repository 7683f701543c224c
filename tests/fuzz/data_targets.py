"""Fuzzed: datasets from elsewhere."""

import json
import os
import shutil
from pathlib import Path
from random import Random

import h5py
import mutators as m
import numpy as np
from broken_inputs import saved
from made_minari import SOURCE, STEPS, made_minari
from target import Target

from unio4_lib.sources.grammar import load_transitions


def _in_minari_root(folder: Path) -> None:
    os.environ["MINARI_DATASETS_PATH"] = str(folder)


def minari_metadata(folder: Path) -> Target:
    whole = folder / "whole"
    made_minari(whole)
    metadata = json.loads((whole / "made/set-v0/data/metadata.json").read_text())
    inner = ("env_spec", "observation_space", "action_space")  # JSON in JSON

    def attempt(random: Random, work: Path) -> object:
        shutil.copytree(whole, work, dirs_exist_ok=True)
        changed = dict(metadata)
        if random.random() < 0.6:
            name = random.choice(inner)
            part = m.damaged_json(random, json.loads(changed[name]))
            changed[name] = m.json_bytes(part).decode()
        else:
            changed = m.damaged_json(random, changed)
        (work / "made/set-v0/data/metadata.json").write_bytes(m.json_bytes(changed))
        return _load_minari(random, work)

    return Target("Minari metadata", attempt)


def _load_minari(random: Random, root: Path) -> object:
    from unio4_lib.sources.minari_source import local_ids, read_metadata, summarize_episodes

    _in_minari_root(root)
    if random.random() < 0.3:
        return [summarize_episodes(name, read_metadata(name)) for name in local_ids()]
    return load_transitions(SOURCE, download=False)


def minari_bytes(folder: Path) -> Target:
    made_minari(folder / "whole")

    def attempt(random: Random, work: Path) -> object:
        shutil.copytree(folder / "whole", work, dirs_exist_ok=True)
        m.damage_folder(random, work, {})
        return _load_minari(random, work)

    return Target("Minari bytes", attempt)


def minari_structure(folder: Path) -> Target:
    made_minari(folder / "whole")

    def attempt(random: Random, work: Path) -> object:
        shutil.copytree(folder / "whole", work, dirs_exist_ok=True)
        with h5py.File(work / "made/set-v0/data/main_data.hdf5", "a") as file:
            for _ in range(random.choice((1, 1, 2))):
                odd_member(random, file, STEPS)
        return _load_minari(random, work)

    return Target("Minari structure", attempt)


def _d4rl_file(path: Path) -> None:
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = generator.normal(size=(STEPS, 11)).astype(np.float32)
        file["actions"] = generator.uniform(-1, 1, (STEPS, 3)).astype(np.float32)
        file["rewards"] = generator.normal(size=STEPS).astype(np.float32)
        file["terminals"] = np.zeros(STEPS, np.bool_)
        file["timeouts"] = np.arange(STEPS) % 10 == 9
        file.create_dataset("infos/qpos", data=np.zeros((STEPS, 6)), compression="gzip")


OPTIONS = (
    "",
    "?max_episode_steps=5",
    "?antmaze=true",
    "?clip_actions=true",
    "?env=Nope-v0&action_low=-3&action_high=3",
)


def d4rl_bytes(folder: Path) -> Target:
    _d4rl_file(folder / "hopper.hdf5")

    def attempt(random: Random, work: Path) -> object:
        shutil.copyfile(folder / "hopper.hdf5", work / "hopper.hdf5")
        m.edit_bytes(random, work / "hopper.hdf5")
        return load_transitions(f"d4rl:{work}/hopper.hdf5{random.choice(OPTIONS)}")

    return Target("D4RL bytes", attempt)


def d4rl_structure(folder: Path) -> Target:
    _d4rl_file(folder / "hopper.hdf5")

    def attempt(random: Random, work: Path) -> object:
        shutil.copyfile(folder / "hopper.hdf5", work / "hopper.hdf5")
        with h5py.File(work / "hopper.hdf5", "a") as file:
            for _ in range(random.choice((1, 1, 2))):
                odd_member(random, file, STEPS)
        return load_transitions(f"d4rl:{work}/hopper.hdf5{random.choice(OPTIONS)}")

    return Target("D4RL structure", attempt)


DTYPES = (
    "f2",
    "f4",
    ">f4",
    "f8",
    "i1",
    "u1",
    "i8",
    "u8",
    "?",
    "c8",
    "S3",
    "V4",
    "M8",
    "vlen",
    "text",
    "enum",
    "ref",
    "void",
    "array",
)


def odd_member(random: Random, file: h5py.File, rows: int) -> None:
    """One member of a file in another type or shape, missing, moved, a group, or a link."""
    names: list[str] = []
    file.visit(names.append)
    if not names:
        return
    name = random.choice(names)
    kind = random.randrange(10)
    del file[name]
    if kind == 0:
        return
    if kind == 1:
        file.create_group(name)
    elif kind == 2:
        file[name] = h5py.SoftLink(random.choice(("/", name, "/nowhere", "/observations")))
    elif kind == 3:
        file[name] = h5py.ExternalLink(random.choice(("/etc/passwd", file.filename)), "/")
    elif kind == 4:
        shape = random.choice(((10**12,), (rows, 10**9), (2**62,), (10**8, 11), (10**8,), (0,), (rows, 0)))
        file.create_dataset(
            name, shape, "f4", chunks=tuple(min(max(size, 1), 1000) for size in shape) if all(shape) else None
        )
    else:
        _odd_dataset(random, file, name, rows)


def _odd_dataset(random: Random, file: h5py.File, name: str, rows: int) -> None:
    shape = random.choice(
        ((rows,), (rows, 1), (1, rows), (), (rows + 1, 4), (rows, 3), (rows, 11), (3, 3, 3), (0,), (1,))
    )
    match random.choice(DTYPES):
        case "vlen":
            file.create_dataset(name, shape, h5py.vlen_dtype(np.float32))
        case "text":
            file.create_dataset(name, shape, h5py.string_dtype())
        case "enum":
            file.create_dataset(name, shape, h5py.enum_dtype({"a": 0, "b": 1}, "i1"))
        case "ref":
            file.create_dataset(name, shape, h5py.ref_dtype)
        case "void":
            file[name] = h5py.Empty(random.choice(("f4", "S3", "?")))
        case "array":
            file.create_dataset(name, shape, np.dtype(("f4", (3,))))
        case "M8":
            file.create_dataset(name, shape, h5py.opaque_dtype(np.dtype("M8[s]")))
        case plain:
            values = np.frombuffer(
                random.randbytes(int(np.prod(shape, dtype=int)) * np.dtype(plain).itemsize), "u1"
            )
            if plain == "?":
                values = values & 1
            file.create_dataset(name, data=values.view(plain).reshape(shape))


def transitions(folder: Path) -> Target:
    saved(folder)

    def attempt(random: Random, work: Path) -> object:
        shutil.copytree(folder / "data", work / "data")
        if random.random() < 0.4:
            m.edit_header(random, work / "data/transitions.safetensors")
        else:
            m.damage_folder(random, work / "data", m.EDITS)
        return load_transitions(f"transitions:{work}/data")

    return Target("transitions", attempt)
