"""Artifacts in a bucket of any S3 server."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from unio4_lib.artifacts.integrity import (
    check_folder,
    check_names,
    partial_folder,
    reachable,
    read_manifest,
    seal,
    sizes_in,
)
from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest, check_relative
from unio4_lib.artifacts.ref import ARTIFACTS, ArtifactRef, StoredBytes
from unio4_lib.artifacts.s3 import S3Settings, StoreError
from unio4_lib.artifacts.s3_transfer import Bucket, S3Object
from unio4_lib.errors import InputError
from unio4_lib.files import frame_header, unframe

Result = TypeVar("Result")
REREADS = 3  # of an answer that does not fit; an object that is really damaged stays so


class S3Store:
    """``prefix/artifacts/<digest>/``: files first, the manifest last; without it nothing is there.

    Keys contain the digest of the content, so two publishers of one key write the same bytes, and no
    server needs conditional writes.
    """

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self.bucket, self.prefix, self.settings = Bucket(bucket, settings), prefix, settings

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket.name}/{self.prefix}".rstrip("/")

    def publish(self, folder: Path, manifest: Manifest) -> ArtifactRef:
        """Upload a folder; content that is there already is not sent again."""
        check_names(sizes_in(folder), manifest, str(folder))
        prefix = self._prefix(manifest.digest)
        self.bucket.upload(manifest.files, prefix, folder)
        # A collection may have run meanwhile: the mark is set only over what is really there.
        self._check_listing(manifest)
        # Written again even if it is there: the artifact is young again, and a collection leaves it alone.
        self.bucket.write(f"{prefix}{MANIFEST_FILE}", manifest.to_bytes())
        return ArtifactRef.to_manifest(manifest, self.uri)

    def fetch(self, ref: ArtifactRef | str, target: Path) -> Path:
        """Download an artifact into a new folder, verified; a broken download is resumed by the next."""
        manifest = self.manifest(ref)
        partial = partial_folder(target)
        partial.parent.mkdir(parents=True, exist_ok=True)
        lock_path = partial.with_name(f"{partial.name}-lock")
        with lock_path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two processes with one target: the second finds it done
            if target.exists() and any(target.iterdir()):
                check_folder(target, read_manifest(target, manifest.digest))
                return target
            self._download(manifest, partial / manifest.digest)
            (partial / manifest.digest).rename(target)
            shutil.rmtree(partial, ignore_errors=True)
        lock_path.unlink(missing_ok=True)
        return target

    def manifest(self, ref: ArtifactRef | str) -> Manifest:
        """The manifest of a published artifact."""
        digest = ref if isinstance(ref, str) else ref.digest
        key = f"{self._prefix(digest)}{MANIFEST_FILE}"
        place = self._place(key)

        def read() -> Manifest:
            data = self.bucket.read(key)
            if data is None:
                raise InputError(f"{place}: no manifest; this artifact was never published whole")
            return Manifest.from_bytes(data, place, digest)

        manifest = self._settled(read)
        if isinstance(ref, ArtifactRef):
            ref.check(manifest, place)
        return manifest

    def list_artifacts(self) -> list[ArtifactRef]:
        """Every published artifact whose manifest can be read."""
        return [ArtifactRef.to_manifest(manifest, self.uri) for manifest in self.manifests()[0].values()]

    def manifests(self) -> tuple[dict[str, Manifest], dict[str, str]]:
        """What the manifests say, and why some say nothing, by the digests in their keys."""
        return self._manifests(self._objects())

    def exists(self, digest: str) -> bool:
        """Whether the artifact was published; its files are not read."""
        return self.bucket.read(f"{self._prefix(digest)}{MANIFEST_FILE}") is not None

    def stands(self, ref: ArtifactRef | str) -> Manifest:
        """Check an artifact as far as that moves none of its bytes: manifest, names and sizes."""
        manifest = self.manifest(ref)
        self._check_listing(manifest)
        return manifest

    def verify(self, ref: ArtifactRef | str) -> Manifest:
        """Read every byte of an artifact and compare."""
        with tempfile.TemporaryDirectory(prefix="unio4-verify-") as folder:
            return read_manifest(self.fetch(ref, Path(folder) / "artifact"))

    def delete(self, digest: str) -> None:
        """Remove an artifact; the manifest goes first, so that no half of it is ever read."""
        self._remove([item.key for item in self.bucket.listing(self._prefix(digest))])

    def gc(
        self,
        keep: Collection[str],
        older_than: float,
        *,
        dry_run: bool = False,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> list[str]:
        """Remove what is older than so many seconds and neither kept nor an input of something kept.

        Half-uploaded artifacts go too. Returns what was removed; with ``dry_run`` what would be.
        ``manifests`` are those of the root, where someone has just read them.
        """
        latest = time.time() - older_than
        objects = self._objects()
        kept = reachable(keep, self._manifests(objects)[0] if manifests is None else manifests)
        removed = []
        for digest, items in objects.items():
            marks = [item for item in items if item.key.endswith(f"/{digest}/{MANIFEST_FILE}")]
            if marks and digest in kept:
                continue
            if max(item.modified for item in marks or items) < latest:
                if not dry_run:
                    self._remove([item.key for item in items])
                removed.append(digest)
        return removed

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write or replace a small thing outside the artifacts, with a checksum."""
        self.bucket.write(self._key(key), frame_header(data) + data)

    def get_bytes(self, key: str) -> bytes | None:
        """Read a small thing, checked; None if there is none."""
        whole = self._key(key)

        def get() -> bytes | None:
            data = self.bucket.read(whole)
            return None if data is None else unframe(data, self._place(whole))

        return self._settled(get)

    def delete_bytes(self, key: str) -> None:
        """Remove a small thing, if it is there."""
        self.bucket.delete(self._key(key))

    def list_bytes(self, folder: str) -> list[StoredBytes]:
        """All small things below a folder."""
        start = len(f"{self.prefix}/") if self.prefix else 0
        return [
            StoredBytes(item.key[start:], item.size, item.modified)
            for item in self.bucket.listing(f"{self._key(folder)}/")
        ]

    def _download(self, manifest: Manifest, folder: Path) -> None:
        prefix = self._prefix(manifest.digest)

        self._check_listing(manifest)
        folder.mkdir(parents=True, exist_ok=True)
        self.bucket.download(manifest.files, prefix, folder)
        seal(folder, manifest)

    def _check_listing(self, manifest: Manifest) -> None:
        prefix = self._prefix(manifest.digest)
        self._settled(lambda: check_names(self._sizes(prefix), manifest, self._place(prefix)))

    def _settled(self, read: Callable[[], Result]) -> Result:
        """What a read finds; a wrong answer may be from the past or have lost bytes on the way."""
        for attempt in range(REREADS):
            try:
                return read()
            except StoreError:
                raise
            except InputError:
                time.sleep(self.settings.pause * 2**attempt)
        return read()

    def _sizes(self, prefix: str) -> dict[str, int]:
        return {item.key.removeprefix(prefix): item.size for item in self.bucket.listing(prefix)}

    def _objects(self) -> dict[str, list[S3Object]]:
        root = self._key(f"{ARTIFACTS}/")
        found: dict[str, list[S3Object]] = {}
        for item in self.bucket.listing(root):
            found.setdefault(item.key.removeprefix(root).split("/")[0], []).append(item)
        return found

    def _manifests(self, objects: Mapping[str, list[S3Object]]) -> tuple[dict[str, Manifest], dict[str, str]]:
        marked = [
            digest
            for digest, items in objects.items()
            if any(item.key.endswith(f"/{digest}/{MANIFEST_FILE}") for item in items)
        ]
        with ThreadPoolExecutor(self.settings.threads) as pool:
            said = dict(zip(marked, pool.map(self._said, marked), strict=True))
        found = {digest: told for digest, told in said.items() if isinstance(told, Manifest)}
        return found, {digest: told for digest, told in said.items() if isinstance(told, str)}

    def _said(self, digest: str) -> Manifest | str | None:
        """A manifest, or why it says nothing; None where it was removed in this moment."""
        try:
            return self.manifest(digest)
        except StoreError:
            raise
        except InputError as error:
            return str(error) if self.exists(digest) else None

    def _remove(self, keys: list[str]) -> None:
        for key in sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST_FILE}")):
            self.bucket.delete(key)

    def _prefix(self, digest: str) -> str:
        return self._key(f"{ARTIFACTS}/{digest}/")

    def _key(self, relative: str) -> str:
        check_relative(relative.rstrip("/"))
        return f"{self.prefix}/{relative}" if self.prefix else relative

    def _place(self, key: str) -> str:
        return f"s3://{self.bucket.name}/{key}".rstrip("/")
