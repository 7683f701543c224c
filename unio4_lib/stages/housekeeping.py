"""What of a root may go: what no recent fingerprint and no run leads to."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.artifacts.store import Store, StoredBytes
from unio4_lib.errors import InputError
from unio4_lib.stages.fingerprint import CHECKPOINTS, FINGERPRINTS, read_entry


@dataclass(frozen=True)
class Collection:
    """What was removed from a root, or would be."""

    artifacts: list[str]  # digests, and names of what was never published whole
    small: list[StoredBytes]  # entries of the index and checkpoints
    work: list[Path]  # local folders of stages that were killed
    bytes: int
    kept: int  # artifacts that stay


def collect(
    store: Store, older_than: float, *, runs: Iterable[Path], work: Path, dry_run: bool
) -> Collection:
    """Remove what is older than so many seconds and in nobody's use.

    Artifacts stay that a fingerprint of this time or a run's folder leads to, with all that they were made
    from. A fingerprint is of this time again whenever it is reused.
    """
    latest = time.time() - older_than
    index = store.list_bytes(FINGERPRINTS)
    in_runs = {ref.digest for ref in _references(runs)}
    digests = {item.key: _digest_of(store, item) for item in index}
    old = [item for item in index if item.modified < latest and digests[item.key] not in in_runs]
    keep = in_runs | {digests[item.key] for item in index if item not in old}
    sizes = dict.fromkeys(store.damaged_manifests(), 0)
    sizes |= {ref.digest: ref.bytes for ref in store.list_artifacts()}
    artifacts = store.gc(keep, older_than, dry_run=dry_run)
    small = [*old, *(item for item in store.list_bytes(CHECKPOINTS) if item.modified < latest)]
    dead = [folder for folder in _folders(work) if _newest(folder) < latest]
    if not dry_run:
        for item in small:
            store.delete_bytes(item.key)
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
    removed = sum(sizes.get(name, 0) for name in artifacts) + sum(item.size for item in small)
    return Collection(artifacts, small, dead, removed, len(set(sizes) - set(artifacts)))


def _digest_of(store: Store, item: StoredBytes) -> str:
    """The artifact of an entry; a damaged entry, or one removed in this moment, leads to none."""
    try:
        entry = read_entry(store, item.key.removeprefix(f"{FINGERPRINTS}/"))
    except StoreError:
        raise
    except InputError:
        return ""
    return "" if entry is None else entry.ref.digest


def _references(runs: Iterable[Path]) -> list[ArtifactRef]:
    """What the folders of runs refer to."""
    return [
        ArtifactRef.load(path)
        for folder in runs
        for path in sorted(folder.glob("*/artifacts/*.json"))
        if not path.parent.parent.is_symlink()
    ]


def _folders(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.is_dir()] if work.is_dir() else []


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])


def find_artifact(store: Store, name: str) -> str:
    """The digest of the artifact, damaged ones included, whose digest begins so."""
    digests = [*(ref.digest for ref in store.list_artifacts()), *store.damaged_manifests()]
    found = [digest for digest in digests if digest.startswith(name)]
    if len(found) != 1:
        what = "no artifact" if not found else f"{len(found)} artifacts"
        raise InputError(f"{store.uri}: {what} that begins with {name}; see unio4 artifacts list")
    return found[0]
