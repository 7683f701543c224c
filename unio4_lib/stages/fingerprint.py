"""When two computations are the same: the fingerprint of a stage, and what was found under it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from unio4_lib.artifacts.manifest import Closed, Sha256, canonical_json
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import Store
from unio4_lib.errors import InputError
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.code import code_version
from unio4_lib.stages.step import Step

FINGERPRINTS, CHECKPOINTS = "fingerprints", "checkpoints"  # key prefixes below a root


class IndexEntry(Closed):
    """What stands under a fingerprint: the artifact, and the content of a local source at that time."""

    ref: ArtifactRef
    source: Sha256 | None = None


def stage_settings(stage: Step, config: RunConfig) -> dict[str, Any]:
    """The settings that a stage reads; ``device`` is the one that is really used."""
    settings: dict[str, Any] = {}
    for name in stage.reads:
        value: Any = config.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        settings[name] = _device(config) if name == "device" else value
    return settings


def fingerprint(stage: Step, config: RunConfig, inputs: Mapping[str, ArtifactRef]) -> str:
    """Digest of everything that the result of a stage depends on."""
    facts = {
        "stage": stage.name,
        "config": stage_settings(stage, config),
        "inputs": {kind: ref.digest for kind, ref in inputs.items()},
        "code": _code(stage, config),
    }
    return digest_of(facts)


def _code(stage: Step, config: RunConfig) -> str:
    """Of the stage's own module, and of those that its settings name."""
    own, named = code_version(stage.module), stage.uses(config)
    return digest_of([own, *map(code_version, named)]) if named else own


def digest_of(values: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(values)).hexdigest()


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
    from unio4_lib.stages.device import choose_device

    return choose_device(config).type
