"""Where artifacts live: a folder or an S3 bucket, behind one protocol."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.folder_store import FolderStore
from unio4_lib.artifacts.integrity import read_manifest
from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest
from unio4_lib.artifacts.ref import ArtifactRef, StoredBytes
from unio4_lib.artifacts.s3 import S3Settings
from unio4_lib.artifacts.s3_store import S3Store
from unio4_lib.errors import BELONG_ELSEWHERE, InputError, without_user_info

__all__ = ["FolderStore", "S3Store", "Store", "StoredBytes", "hold", "open_store"]

S3_SCHEME = "s3://"


class Store(Protocol):
    """Immutable artifacts by digest, and small replaceable things by key."""

    @property
    def uri(self) -> str: ...

    def publish(self, folder: Path, manifest: Manifest) -> ArtifactRef: ...

    def fetch(self, ref: ArtifactRef | str, target: Path) -> Path: ...

    def manifest(self, ref: ArtifactRef | str) -> Manifest: ...

    def list_artifacts(self) -> list[ArtifactRef]: ...

    def manifests(self) -> tuple[dict[str, Manifest], dict[str, str]]: ...

    def exists(self, digest: str) -> bool: ...

    def stands(self, ref: ArtifactRef | str) -> Manifest: ...

    def verify(self, ref: ArtifactRef | str) -> Manifest: ...

    def delete(self, digest: str) -> None: ...

    def gc(
        self,
        keep: Collection[str],
        older_than: float,
        *,
        dry_run: bool = False,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> list[str]: ...

    def put_bytes(self, key: str, data: bytes) -> None: ...

    def get_bytes(self, key: str) -> bytes | None: ...

    def delete_bytes(self, key: str) -> None: ...

    def list_bytes(self, folder: str) -> list[StoredBytes]: ...


def open_store(root: str | os.PathLike[str], settings: S3Settings | None = None) -> Store:
    """The store at a folder or at ``s3://bucket/prefix``; nothing is contacted or created yet."""
    text = os.fspath(root)
    if not text.startswith(S3_SCHEME):
        if "://" in text:
            raise InputError(f"{text}: unknown scheme; expected a folder or s3://bucket/prefix")
        return FolderStore(text)
    bucket, _, prefix = text.removeprefix(S3_SCHEME).partition("/")
    if not bucket:
        raise InputError(f"{text}: no bucket; expected s3://bucket/prefix")
    if "@" in bucket:
        raise InputError(f"{without_user_info(text)}: {BELONG_ELSEWHERE}")
    return S3Store(bucket, prefix.strip("/"), settings or S3Settings())


@contextmanager
def hold(store: Store, ref: ArtifactRef | str, cache: Cache) -> Iterator[Path]:
    """A verified local folder of an artifact, which stays while it is held.

    A folder store is used in place; anything else goes through the cache.
    """
    if isinstance(store, FolderStore):
        yield store.place(store.verify(ref).digest)
        return
    digest = ref if isinstance(ref, str) else ref.digest
    with cache.hold(digest, lambda target: store.fetch(ref, target)) as folder:
        if isinstance(ref, ArtifactRef):  # what was here already was not compared with it
            ref.check(read_manifest(folder, digest), str(folder / MANIFEST_FILE))
        yield folder
