"""When two computations are the same: the fingerprint of a stage, and what was found under it."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import unio4_lib
from unio4_lib.artifacts.manifest import Closed, Sha256, canonical_json
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import Store
from unio4_lib.config import RunConfig
from unio4_lib.errors import InputError
from unio4_lib.files import blocks_of
from unio4_lib.stages.catalog import Stage

FINGERPRINTS, CHECKPOINTS = "fingerprints", "checkpoints"  # key prefixes below a root
# Code that decides about numbers; the command line, the stores and the tracker do not.
NUMBERS = ("data", "nets", "offline", "online", "sim", "stages", "training", "evaluation.py", "student.py")


class IndexEntry(Closed):
    """What stands under a fingerprint: the artifact, and the content of a local source at that time."""

    ref: ArtifactRef
    source: Sha256 | None = None


def stage_settings(stage: Stage, config: RunConfig) -> dict[str, Any]:
    """The settings that a stage reads; ``device`` is the one that is really used."""
    settings: dict[str, Any] = {}
    for name in stage.reads:
        value: Any = config.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        settings[name] = _device(config) if name == "device" else value
    return settings


def fingerprint(stage: Stage, config: RunConfig, inputs: Mapping[str, ArtifactRef]) -> str:
    """Digest of everything that the result of a stage depends on."""
    facts = {
        "stage": stage.name,
        "config": stage_settings(stage, config),
        "inputs": {kind: ref.digest for kind, ref in inputs.items()},
        "code": code_version(stage.name == "report"),
    }
    return digest_of(facts)


def digest_of(values: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(values)).hexdigest()


@cache
def code_version(report: bool = False) -> str:
    """The release, and the source of everything that decides about numbers (or, too, about the report)."""
    root = Path(unio4_lib.__file__).parent
    state = hashlib.sha256(unio4_lib.__version__.encode())
    for name in (*NUMBERS, "report") if report else NUMBERS:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            state.update(f"{path.relative_to(root).as_posix()}\n".encode())
            for block in blocks_of(path):
                state.update(block)
    return state.hexdigest()


def read_entry(store: Store, key: str) -> IndexEntry | None:
    """What was found under a fingerprint, its reference as seen from this store."""
    name = f"{FINGERPRINTS}/{key}"
    data = store.get_bytes(name)
    if data is None:
        return None
    try:
        entry = IndexEntry.model_validate_json(data)
    except ValueError as error:
        raise InputError(f"{store.uri}/{name}: not an entry of the index; remove it") from error
    # A root may have been moved or copied since.
    place = f"{store.uri}/artifacts/{entry.ref.digest}"
    return entry.model_copy(update={"ref": entry.ref.model_copy(update={"uri": place})})


def write_entry(store: Store, key: str, entry: IndexEntry) -> None:
    """Let a fingerprint be found."""
    store.put_bytes(f"{FINGERPRINTS}/{key}", json.dumps(entry.model_dump(), indent=1).encode())


def _device(config: RunConfig) -> str:
    if config.device != "auto":
        return config.device
    from unio4_lib.stages.method import choose_device

    return choose_device(config).type
