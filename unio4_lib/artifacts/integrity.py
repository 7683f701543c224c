"""Checks that stand between stored bytes and their use; each names the file that fails."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest, list_files
from unio4_lib.errors import InputError
from unio4_lib.files import blocks_of, hash_file, read_plain, sync_folder, write_atomically

REMEDY = "publish or copy the artifact again"


def read_manifest(folder: Path, digest: str | None = None) -> Manifest:
    """The manifest of an artifact's folder; without one nothing was ever published."""
    path = folder / MANIFEST_FILE
    try:
        data = read_plain(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no manifest; this artifact was never published whole") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
    return Manifest.from_bytes(data, str(path), digest)


def check_names(sizes: dict[str, int], manifest: Manifest, place: str) -> None:
    """Compare names and sizes of what is there with the manifest, before any content is read."""
    missing = sorted(set(manifest.files) - set(sizes))
    if missing:
        raise InputError(f"{place}/{missing[0]}: missing, but {MANIFEST_FILE} lists it; {REMEDY}")
    extra = sorted(set(sizes) - set(manifest.files) - {MANIFEST_FILE})
    if extra:
        raise InputError(f"{place}/{extra[0]}: not listed in {MANIFEST_FILE}; remove it")
    for name, entry in manifest.files.items():
        check_size(sizes[name], entry.size, f"{place}/{name}")


def sizes_in(folder: Path) -> dict[str, int]:
    """The files of a folder, as ``check_names`` compares them."""
    return {name: (folder / name).stat().st_size for name in list_files(folder)}


def check_size(found: int, expected: int, place: str) -> None:
    """Compare the size of one file."""
    if found != expected:
        raise InputError(f"{place}: {found} bytes, {MANIFEST_FILE} says {expected}; {REMEDY}")


def check_content(found: str, expected: str, place: str) -> None:
    """Compare the digest of one file."""
    if found != expected:
        raise InputError(f"{place}: sha256 {found[:16]}, {MANIFEST_FILE} says {expected[:16]}; {REMEDY}")


def check_folder(folder: Path, manifest: Manifest) -> None:
    """Compare every file of a folder with the manifest."""
    check_names(sizes_in(folder), manifest, str(folder))
    for name, entry in manifest.files.items():
        check_content(hash_file(folder / name), entry.sha256, f"{folder}/{name}")


def copy_verified(source: Path, target: Path, manifest: Manifest) -> None:
    """Copy an artifact's files and then its manifest; what is copied is what was checked."""
    check_names(sizes_in(source), manifest, str(source))
    for name, entry in manifest.files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        state = hashlib.sha256()
        with path.open("xb") as file:
            for block in blocks_of(source / name):
                state.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        check_content(state.hexdigest(), entry.sha256, f"{source}/{name}")
    seal(target, manifest)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest after everything else has reached the disk."""
    for parent in sorted({(folder / name).parent for name in manifest.files}, reverse=True):
        sync_folder(parent)
    write_atomically(folder / MANIFEST_FILE, manifest.to_bytes())


@contextmanager
def new_folder(target: Path, staging: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` at the end, or disappears when anything fails."""
    temporary = staging / f"{target.name[:16]}-{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def partial_folder(target: Path) -> Path:
    """Where a fetch into ``target`` keeps what it has, so that the next attempt goes on from there."""
    return target.parent / f".{target.name}.partial"


def reachable(keep: Iterable[str], manifests: Mapping[str, Manifest]) -> set[str]:
    """The artifacts to keep and everything that they were made from."""
    seen: set[str] = set()
    waiting = list(keep)
    while waiting:
        digest = waiting.pop()
        if digest not in seen:
            seen.add(digest)
            waiting.extend(manifests[digest].inputs.values() if digest in manifests else ())
    return seen
