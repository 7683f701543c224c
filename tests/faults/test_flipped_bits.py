"""Every byte counts: one flipped bit anywhere is found before anything is used, and the file is named."""

import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tiny_runs import saved_recording
from whole_runs import TRAINING, AskedToEnd, all_artifacts, find_stage, inputs_of, tiny_config

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import FolderStore
from unio4_lib.errors import InputError, Preempted
from unio4_lib.learning.checkpoint import Checkpointer, load_state
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.fingerprint import read_entry
from unio4_lib.stages.runner import run_stage

PLACES = 200


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything of a run, and the checkpoints of all its trainings, in the store and on the disk."""
    place = tmp_path_factory.mktemp("root")
    dataset = saved_recording(tmp_path_factory.mktemp("recorded"))
    refs, config = all_artifacts(tiny_config(dataset), place), tiny_config(dataset, checkpoint_seconds=0)
    for name in TRAINING:
        inputs = inputs_of(find_stage(name).inputs, refs)
        context = StageContext(place, cache=place / "cache", reuse=False, preemption=AskedToEnd(4))
        with context, pytest.raises(Preempted):
            run_stage(find_stage(name), config, inputs, context)
    return place


def use(path: Path, root: Path, empty: Path, refs: Mapping[str, ArtifactRef]) -> Callable[[], object]:
    """How the file is used by whoever needs it."""
    store = FolderStore(root)
    folder, *rest = path.relative_to(root).parts
    if folder == "artifacts":
        return lambda: StageContext(root).hold(refs[rest[0]])
    if folder == "fingerprints":
        return lambda: read_entry(store, rest[0])
    if folder == "checkpoints":
        return lambda: Checkpointer(0.0, empty, store, f"checkpoints/{rest[0]}").load()
    return lambda: load_state(path)


def test_200_of_200_are_found(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(5)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    kinds = {path.relative_to(root).parts[0] for path in files}
    assert kinds == {"artifacts", "checkpoints", "fingerprints", "cache"}
    assert sum("checkpoints" in path.parts for path in files) == 2 * len(TRAINING)
    refs = {ref.digest: ref for ref in FolderStore(root).list_artifacts()}
    found = 0
    for _ in range(PLACES):
        path = source.choice(files)
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        path.write_bytes(changed)
        found += detected(use(path, root, tmp_path / "empty", refs), path, caplog)
        path.write_bytes(whole)
    assert found == PLACES
    for path in files:
        use(path, root, tmp_path / "empty", refs)()  # as they were, all can be used


def detected(action: Callable[[], object], path: Path, caplog: pytest.LogCaptureFixture) -> bool:
    """Refused, or, where another generation is whole, passed over with a warning; named in both cases."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        try:
            action()
        except InputError as error:
            return path.name in str(error)
    return path.name in caplog.text
