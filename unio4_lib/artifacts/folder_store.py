"""Artifacts in a folder of this machine or of a shared file system."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from unio4_lib.artifacts.integrity import (
    check_folder,
    check_names,
    copy_verified,
    new_folder,
    reachable,
    read_manifest,
)
from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest, check_relative, list_files
from unio4_lib.artifacts.ref import ARTIFACTS, ArtifactRef, StoredBytes
from unio4_lib.errors import InputError
from unio4_lib.files import frame_header, read_plain, unframe, write_atomically

STAGING = ".staging"  # half-written things; nothing is ever read from here
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


class FolderStore:
    """``root/artifacts/<digest>/``: files and manifest; a folder appears there whole, by one rename."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    @property
    def uri(self) -> str:
        return str(self.root)

    def place(self, digest: str) -> Path:
        """The folder of an artifact, published or not."""
        return self.root / ARTIFACTS / digest

    def publish(self, folder: Path, manifest: Manifest) -> ArtifactRef:
        """Copy a folder into the store; what is there already is checked and kept, or replaced if damaged."""
        target = self.place(manifest.digest)
        try:
            if not self._kept(target, manifest):
                self._copy(folder, target, manifest)
        except OSError as error:
            raise InputError(
                f"{target}: cannot be written ({error.strerror or error}); nothing was published"
            ) from error
        return ArtifactRef.to_manifest(manifest, self.uri)

    def fetch(self, ref: ArtifactRef | str, target: Path) -> Path:
        """Copy an artifact into a new folder, verified."""
        manifest = self.manifest(ref)
        source = self.place(manifest.digest)
        if target.exists() and any(target.iterdir()):
            check_folder(target, read_manifest(target, manifest.digest))
            return target
        with new_folder(target, target.parent) as temporary:
            copy_verified(source, temporary, manifest)
        return target

    def manifest(self, ref: ArtifactRef | str) -> Manifest:
        """The manifest of a published artifact."""
        digest = ref if isinstance(ref, str) else ref.digest
        manifest = read_manifest(self.place(digest), digest)
        if isinstance(ref, ArtifactRef):
            ref.check(manifest, str(self.place(digest) / MANIFEST_FILE))
        return manifest

    def list_artifacts(self) -> list[ArtifactRef]:
        """Every published artifact whose manifest can be read."""
        return [ArtifactRef.to_manifest(manifest, self.uri) for manifest in self.manifests()[0].values()]

    def manifests(self) -> tuple[dict[str, Manifest], dict[str, str]]:
        """What the manifests say, and why some say nothing, by the names of their folders."""
        found, damaged = {}, {}
        for folder in self._folders():
            if (folder / MANIFEST_FILE).exists():
                try:
                    found[folder.name] = read_manifest(folder, folder.name)
                except InputError as error:
                    if folder.exists():  # else it was removed in this moment
                        damaged[folder.name] = str(error)
        return found, damaged

    def exists(self, digest: str) -> bool:
        """Whether the artifact was published; its files are not read."""
        return (self.place(digest) / MANIFEST_FILE).is_file()

    def stands(self, ref: ArtifactRef | str) -> Manifest:
        """Check an artifact as far as that moves none of its bytes: here, all of it."""
        return self.verify(ref)

    def verify(self, ref: ArtifactRef | str) -> Manifest:
        """Read every byte of an artifact and compare."""
        manifest = self.manifest(ref)
        check_folder(self.place(manifest.digest), manifest)
        return manifest

    def delete(self, digest: str) -> None:
        """Remove an artifact: it disappears at once, then its bytes are freed."""
        self._remove(self.place(digest))

    def gc(
        self,
        keep: Collection[str],
        older_than: float,
        *,
        dry_run: bool = False,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> list[str]:
        """Remove what is older than so many seconds and neither kept nor an input of something kept.

        Half-written things go too. Returns what was removed; with ``dry_run`` what would be. ``manifests``
        are those of the root, where someone has just read them.
        """
        latest = time.time() - older_than
        kept = reachable(keep, self.manifests()[0] if manifests is None else manifests)
        removed = []
        for folder in self._folders():
            mark = folder / MANIFEST_FILE
            if mark.exists() and folder.name in kept:
                continue
            if _modified(mark if mark.exists() else folder) < latest:
                if not dry_run:
                    self._remove(folder)
                removed.append(folder.name)
        staging = self.root / STAGING
        for folder in staging.iterdir() if staging.is_dir() else ():
            if _newest(folder) < latest:
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
                removed.append(f"{STAGING}/{folder.name}")
        return removed

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write or replace a small thing outside the artifacts, with a checksum."""
        path = self.root / check_relative(key)
        try:
            write_atomically(path, frame_header(data), data)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error

    def get_bytes(self, key: str) -> bytes | None:
        """Read a small thing, checked; None if there is none."""
        path = self.root / check_relative(key)
        try:
            return unframe(read_plain(path), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}); remove it") from error

    def delete_bytes(self, key: str) -> None:
        """Remove a small thing, if it is there."""
        (self.root / check_relative(key)).unlink(missing_ok=True)

    def list_bytes(self, folder: str) -> list[StoredBytes]:
        """All small things below a folder."""
        place = self.root / check_relative(folder)
        found = []
        for path in sorted(place.rglob("*")) if place.is_dir() else ():
            with suppress(FileNotFoundError):  # removed in this moment
                if path.is_file() and not path.name.endswith(".tmp"):
                    facts = path.stat()
                    key = path.relative_to(self.root).as_posix()
                    found.append(StoredBytes(key, facts.st_size, facts.st_mtime))
        return found

    def _kept(self, target: Path, manifest: Manifest) -> bool:
        if not target.exists():
            return False
        try:
            check_folder(target, read_manifest(target, manifest.digest))
            # Young again, so that a collection does not take what was just asked for.
            os.utime(target / MANIFEST_FILE)
        except (InputError, FileNotFoundError):  # damaged, or removed in this moment
            self._remove(target)
            return False
        return True

    def _copy(self, folder: Path, target: Path, manifest: Manifest) -> None:
        try:
            with new_folder(target, self.root / STAGING) as temporary:
                copy_verified(folder, temporary, manifest)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            # Another publisher of the same content was faster.
            found = read_manifest(target, manifest.digest)
            sizes = {name: (target / name).stat().st_size for name in list_files(target)}
            check_names(sizes, found, str(target))

    def _folders(self) -> list[Path]:
        folder = self.root / ARTIFACTS
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _remove(self, folder: Path) -> None:
        grave = self.root / STAGING / f"removed-{uuid.uuid4().hex}"
        grave.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # someone else was faster
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _newest(folder: Path) -> float:
    """When anything below was last written: a long copy is not a dead one."""
    below = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return max([_modified(folder), *(_modified(path) for path in below)])
