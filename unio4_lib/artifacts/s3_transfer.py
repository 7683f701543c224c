"""Bytes to and from S3: parallel, in bounded memory, repeated where that helps, resumed where it broke."""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from unio4_lib.artifacts.integrity import check_content, check_size
from unio4_lib.artifacts.manifest import FileEntry
from unio4_lib.artifacts.s3 import (
    MEBIBYTE,
    Attempts,
    S3Settings,
    Transient,
    is_missing,
    make_client,
    retried,
)
from unio4_lib.errors import without_user_info
from unio4_lib.files import hash_file

MULTIPART_FROM = 4  # chunks; below this one request is as fast
FILES_AT_ONCE = 4  # on the way up: a server that puts the chunks of one together can take others meanwhile
DOWNLOADS = 3  # of one file whose content turns out wrong
SHA256_KEY = "sha256"


@dataclass(frozen=True)
class S3Object:
    """One line of a listing."""

    key: str
    size: int
    modified: float  # seconds since 1970


class Bucket:
    """The requests that we make of one bucket; each survives what is transient."""

    def __init__(self, name: str, settings: S3Settings) -> None:
        self.name, self.settings = name, settings

    @cached_property
    def client(self) -> Any:
        return make_client(self.settings)

    def attempts(self, key: str) -> Attempts:
        endpoint = without_user_info(self.client.meta.endpoint_url)
        return Attempts(self.settings, f"s3://{self.name}/{key}", endpoint)

    def read(self, key: str) -> bytes | None:
        """The content of a small object; None if there is none."""

        def get() -> bytes | None:
            try:
                answer = self.client.get_object(Bucket=self.name, Key=key)
            except self.client.exceptions.ClientError as error:
                if is_missing(error):
                    return None
                raise
            return bytes(answer["Body"].read())

        return retried(get, self.attempts(key))

    def write(self, key: str, data: bytes) -> None:
        """Create or replace an object."""

        def put() -> None:
            config = self._transfer_config(self.settings.threads)
            self.client.upload_fileobj(io.BytesIO(data), self.name, key, Config=config)

        retried(put, self.attempts(key), short=len(data) < MEBIBYTE)

    def upload(self, files: Mapping[str, FileEntry], prefix: str, folder: Path) -> None:
        """Check files of a folder and upload them, several at once.

        What stands under its key already is not sent again.
        """
        at_once = max(1, min(FILES_AT_ONCE, len(files), self.settings.threads))
        config = self._transfer_config(self.settings.threads // at_once)

        def job(name: str, entry: FileEntry) -> None:
            check_content(hash_file(folder / name), entry.sha256, f"{folder}/{name}")
            self._upload(folder / name, f"{prefix}{name}", entry, config)

        _all([partial(job, name, entry) for name, entry in files.items()], at_once)

    def _upload(self, path: Path, key: str, entry: FileEntry, config: Any) -> None:
        if self._stands(key, entry):
            return
        extra = {"Metadata": {SHA256_KEY: entry.sha256}}

        def put() -> None:
            self.client.upload_file(str(path), self.name, key, ExtraArgs=extra, Config=config)
            if not self._stands(key, entry):
                raise Transient("the object is not what was uploaded")

        retried(put, self.attempts(key), short=False)

    def bring(self, key: str, path: Path) -> None:
        """Download an object of which nothing but its name is known."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch = partial(self.client.download_file, self.name, key, str(path))
        retried(fetch, self.attempts(key), short=False)

    def listing(self, prefix: str) -> Iterator[S3Object]:
        """All objects below a prefix."""
        token: dict[str, str] = {}
        while True:
            page = self._page(prefix, token)
            for item in page.get("Contents", ()):
                yield S3Object(item["Key"], item["Size"], item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        retried(lambda: self.client.delete_object(Bucket=self.name, Key=key), self.attempts(key))

    def download(self, files: Mapping[str, FileEntry], prefix: str, folder: Path) -> None:
        """Bring files from below a prefix into a folder and check every byte.

        What is in the folder already is used: a download that broke goes on where it stood. Content that
        arrives wrong is fetched again before it is called damaged.
        """
        waiting = dict(files)
        for last in (*[False] * (DOWNLOADS - 1), True):
            self._transfer(waiting, prefix, folder)
            with ThreadPoolExecutor(self.settings.threads) as pool:
                found = dict(
                    zip(waiting, pool.map(lambda name: hash_file(folder / name), waiting), strict=True)
                )
            waiting = {name: entry for name, entry in waiting.items() if found[name] != entry.sha256}
            for name, entry in waiting.items():
                (folder / name).unlink()
                if last:
                    place = f"s3://{self.name}/{prefix}{name}"
                    check_content(found[name], entry.sha256, place)

    def _transfer(self, files: Mapping[str, FileEntry], prefix: str, folder: Path) -> None:
        """All missing chunks of all files at once."""
        downloads = [
            Download(self, f"{prefix}{name}", folder / name, entry.size) for name, entry in files.items()
        ]
        chunks = [partial(download.fetch, start) for download in downloads for start in download.missing()]
        _all(chunks, self.settings.threads)
        for download in downloads:
            download.finish()

    def _page(self, prefix: str, token: dict[str, str]) -> dict[str, Any]:
        def get() -> dict[str, Any]:
            return dict(self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **token))

        return retried(get, self.attempts(prefix))

    def _stands(self, key: str, entry: FileEntry) -> bool:
        def head() -> bool:
            try:
                answer = self.client.head_object(Bucket=self.name, Key=key)
            except self.client.exceptions.ClientError as error:
                if is_missing(error):
                    return False
                raise
            # Some servers change the case of metadata keys.
            metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
            same_size = answer["ContentLength"] == entry.size
            return bool(same_size and metadata.get(SHA256_KEY) == entry.sha256)

        return retried(head, self.attempts(key))

    def _transfer_config(self, threads: int) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=MULTIPART_FROM * self.settings.chunk_bytes,
            multipart_chunksize=self.settings.chunk_bytes,
            max_concurrency=threads,
            preferred_transfer_client="classic",
        )


class Download:
    """One file on its way: ``.part`` holds the bytes, ``.done`` the chunks that are complete."""

    def __init__(self, bucket: Bucket, key: str, path: Path, size: int) -> None:
        self.bucket, self.key, self.path, self.size = bucket, key, path, size
        self.part = path.with_name(f".{path.name}.part")
        self.done = path.with_name(f".{path.name}.done")

    def missing(self) -> list[int]:
        """Where the chunks start that are not here yet."""
        if self.path.exists() and self.path.stat().st_size == self.size:
            return []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        chunk = self.bucket.settings.chunk_bytes
        # A record that does not fit (another chunk size, another file) is worth nothing.
        head = f"{self.size} {chunk}"
        lines = self.done.read_text().splitlines() if self.part.exists() and self.done.exists() else []
        if lines[:1] != [head]:
            lines = [head]
            self.done.write_text(f"{head}\n")
            self.part.unlink(missing_ok=True)
        with self.part.open("ab") as file:
            file.truncate(self.size)
        here = {int(line) for line in lines[1:] if line.isdigit()}
        return [start for start in range(0, self.size, chunk) if start not in here]

    def fetch(self, start: int) -> None:
        """Bring one chunk; a broken transfer goes on behind the last byte that came."""
        end = min(start + self.bucket.settings.chunk_bytes, self.size)
        attempts = self.bucket.attempts(self.key)
        position = start
        handle = os.open(self.part, os.O_WRONLY)
        try:
            while position < end:
                try:
                    for block in self._blocks(position, end):
                        os.pwrite(handle, block, position)
                        position += len(block)
                        attempts.progressed()
                    if position < end:
                        raise Transient(f"the answer ended {end - position} bytes early")
                except Exception as error:
                    # The listing had it: not there yet for whoever answered.
                    attempts.failed(Transient("missing") if is_missing(error) else error)
        finally:
            os.close(handle)
        with self.done.open("a") as file:
            file.write(f"{start}\n")

    def finish(self) -> None:
        """The file under its name, once every chunk is here."""
        if self.part.exists():
            check_size(self.part.stat().st_size, self.size, f"s3://{self.bucket.name}/{self.key}")
            self.part.replace(self.path)
        self.done.unlink(missing_ok=True)

    def _blocks(self, position: int, end: int) -> Iterator[bytes]:
        client, expected = self.bucket.client, end - position
        answer = client.get_object(Bucket=self.bucket.name, Key=self.key, Range=f"bytes={position}-{end - 1}")
        # Not every server says 206; what it sends is told by the range that it names, or by the length.
        found = answer.get("ContentRange", f"bytes 0-{answer['ContentLength'] - 1}/{self.size}")
        if found != f"bytes {position}-{end - 1}/{self.size}":
            raise Transient(f"asked for bytes {position}-{end - 1}/{self.size}, the answer has {found}")
        body = answer["Body"]
        try:
            while expected > 0 and (block := body.read(min(MEBIBYTE, expected))):
                expected -= len(block)
                yield block
        finally:
            body.close()


def _all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    """All jobs, so many at a time; after the first failure no other begins."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        finally:
            for future in futures:
                future.cancel()
