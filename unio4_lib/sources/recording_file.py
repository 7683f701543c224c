"""Where a recording ends up: an ordinary Minari dataset, whole or not at all."""

import importlib.metadata
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium.spaces import Dict, flatten_space
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces

from unio4_lib.data.flatten import sorted_space
from unio4_lib.data.reference import reference_scores
from unio4_lib.errors import InputError
from unio4_lib.sim.registry import make_env
from unio4_lib.sources.collect_spec import CollectSpec
from unio4_lib.sources.minari_source import datasets_root

# What HDF5 adds to the arrays of Minari's files: for each episode, and for chunks that are not full.
EPISODE_BYTES, CHUNK_SHARE = 16_000, 1.3
SOME_BYTES = 1_000_000


def reserve(root: Path, size: int = SOME_BYTES) -> None:
    """Find out whether so many bytes can be written there: HDF5 takes the process along when they cannot."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise InputError(
            f"{root}: {size / 1e6:,.1f} MB for a recording cannot be written there "
            f"({error.strerror or error}); free some space, or set MINARI_DATASETS_PATH to another folder"
        ) from error


def write_recording(
    dataset_id: str, spec: CollectSpec, episodes: Sequence[EpisodeBuffer], algorithm: str
) -> None:
    """Store under another name first: the final name appears only with a complete dataset."""
    final = datasets_root() / dataset_id
    reserve(datasets_root(), recording_bytes(episodes))
    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
    staged = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        (staged / "data").mkdir(parents=True)
        env = make_env(spec.env_id, spec.env_kwargs)
        space = env.observation_space
        storage = MinariStorage.new(
            staged / "data",
            # Simulators flatten what they observe.
            observation_space=flatten_space(sorted_space(space)) if isinstance(space, Dict) else space,
            action_space=env.action_space,
            env_spec=env.spec,
        )
        env.close()
        storage.update_metadata(_metadata(dataset_id, spec, algorithm))
        storage.update_episodes(episodes)
        staged.rename(final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def recording_bytes(episodes: Sequence[EpisodeBuffer]) -> int:
    """At most so many will be written."""
    arrays = sum(
        np.asarray(field).nbytes
        for episode in episodes
        for field in (episode.observations, episode.actions, episode.rewards)
    )
    flags = 2 * sum(len(episode.rewards) for episode in episodes)
    return SOME_BYTES + EPISODE_BYTES * len(episodes) + int(CHUNK_SHARE * (arrays + flags))


def _metadata(dataset_id: str, spec: CollectSpec, algorithm: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "algorithm_name": algorithm,
        "author": {"unio4"},
        "description": f"Recorded by unio4: {json.dumps(asdict(spec), sort_keys=True)}",
        "minari_version": minari.__version__,
        "requirements": [f"{name}=={importlib.metadata.version(name)}" for name in ("gymnasium", "mujoco")],
    }
    scores = reference_scores(spec.env_id)
    if scores is not None:
        metadata |= {"ref_min_score": scores[0], "ref_max_score": scores[1]}
    return metadata
