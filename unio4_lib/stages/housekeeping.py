"""What of a root may go: what no recent fingerprint and no run leads to."""

import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.artifacts.store import Store, StoredBytes
from unio4_lib.errors import InputError
from unio4_lib.stages.fingerprint import CHECKPOINTS, FINGERPRINTS, read_entry

READERS = 8  # of entries of the index, of which a distant store may have thousands


@dataclass(frozen=True)
class Collection:
    """What was removed from a root, or would be."""

    artifacts: list[str]  # digests, and names of what was never published whole
    small: list[StoredBytes]  # entries of the index and checkpoints
    work: list[Path]  # local folders of stages that were killed
    damaged: dict[str, str]  # what is wrong with manifests that cannot be read, by digest
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
    with ThreadPoolExecutor(READERS) as pool:
        digests = dict(zip(index, pool.map(partial(_digest_of, store), index), strict=True))
    old = [item for item in index if item.modified < latest and digests[item] not in in_runs]
    keep = in_runs | {digests[item] for item in set(index).difference(old)}
    manifests, damaged = store.manifests()
    artifacts = store.gc(keep, older_than, dry_run=dry_run, manifests=manifests)
    small = [*old, *(item for item in store.list_bytes(CHECKPOINTS) if item.modified < latest)]
    dead = [folder for folder in _folders(work) if _newest(folder) < latest]
    if not dry_run:
        for item in small:
            store.delete_bytes(item.key)
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
    freed = sum(manifests[name].total_bytes for name in artifacts if name in manifests)
    removed = freed + sum(item.size for item in small)
    kept = len((manifests.keys() | damaged.keys()) - set(artifacts))
    return Collection(artifacts, small, dead, damaged, removed, kept)


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


def find_artifact(place: str, digests: Iterable[str], name: str) -> str:
    """The one of a root's digests that begins so."""
    found = [digest for digest in digests if digest.startswith(name)]
    if len(found) != 1:
        what = "no artifact" if not found else f"{len(found)} artifacts"
        raise InputError(f"{place}: {what} that begins with {name}; see unio4 artifacts list")
    return found[0]
