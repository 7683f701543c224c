"""Datasets in object storage: pushed there verified and whole, or laid there by hand."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.artifacts.s3 import S3Settings
from unio4_lib.artifacts.s3_transfer import Bucket, S3Object
from unio4_lib.artifacts.store import Store, hold, open_store
from unio4_lib.errors import InputError

POINTER = "dataset.json"  # says which artifact below the prefix is the dataset; written last
KIND, FOLDER = "log", "transitions"
D4RL_ENDINGS = (".hdf5", ".h5")


@dataclass(frozen=True)
class Remote:
    """A parsed ``s3://bucket/prefix`` with the options of its source."""

    bucket: str
    prefix: str
    options: str  # as in the source, "?" included

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def store(self) -> Store:
        return open_store(self.uri)


def remote(dataset: str) -> Remote | None:
    """The place in object storage that a source names; None for all other sources."""
    from unio4_lib.sources.grammar import parse_source

    source = parse_source(dataset)
    if source.scheme != "s3":
        return None
    bucket, _, prefix = source.place.removeprefix("//").strip("/").partition("/")
    if not source.place.startswith("//") or not bucket or not prefix:
        raise InputError(f"dataset {dataset}: expected s3://<bucket>/<prefix>")
    options = "&".join(f"{name}={quote(value)}" for name, value in source.options.items())
    return Remote(bucket, prefix, f"?{options}" if options else "")


def push(source: str, target: str, scratch: Path) -> Remote:
    """Check what a source names and put it below ``target``, which then is a source itself.

    Content that is there already is not sent again, so a push that was killed goes on; until the last byte
    is verified the target names what it named before.
    """
    place = remote(target)
    if place is None or place.options:
        raise InputError(f"{target}: expected s3://<bucket>/<prefix> as the place to push to")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as name, local_source(source, Cache(scratch)) as local:
        from unio4_lib.sources.grammar import load_transitions

        folder, transitions = Path(name), load_transitions(local)
        transitions.save(folder / FOLDER)
        digest = hashlib.sha256(transitions.digest().encode()).hexdigest()
        store = place.store()
        manifest = Manifest.of_folder(folder, kind=KIND, stage="dataset-push", config_digest=digest)
        store.publish(folder, manifest)
        store.put_bytes(POINTER, json.dumps({"artifact": manifest.digest}).encode())
    return place


@contextmanager
def local_source(dataset: str, cache: Cache) -> Iterator[str]:
    """The same data as a source of this machine, for as long as it is held."""
    place = remote(dataset)
    if place is None:
        yield dataset
        return
    store, digest = place.store(), _pushed(place)
    if digest is not None:
        with hold(store, digest, cache) as folder:
            yield f"transitions:{quote(str(folder / FOLDER))}{place.options}"
        return
    objects = _objects(place)
    cache.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.root) as name:
        yield f"{_bring(place, objects, Path(name))}{place.options}"


def remote_digest(place: Remote) -> str:
    """What the content of the place is known by: it can change while its name stays."""
    digest = _pushed(place)
    if digest is not None:
        return digest
    state = hashlib.sha256()
    for found in _objects(place):
        state.update(f"{found.key} {found.size} {found.modified}\n".encode())
    return state.hexdigest()


def _pushed(place: Remote) -> str | None:
    """The artifact that a push has left there."""
    pointer = place.store().get_bytes(POINTER)
    return None if pointer is None else str(json.loads(pointer)["artifact"])


def _objects(place: Remote) -> list[S3Object]:
    """What lies at the place, or below it."""
    listing = Bucket(place.bucket, S3Settings()).listing(place.prefix)
    found = [item for item in listing if item.key == place.prefix or item.key.startswith(f"{place.prefix}/")]
    if not found:
        raise InputError(
            f"dataset {place.uri}: nothing is there; expected a D4RL file, a folder of transitions, or what "
            "`unio4 dataset push` has put there"
        )
    return sorted(found, key=lambda item: item.key)


def _bring(place: Remote, objects: list[S3Object], folder: Path) -> str:
    """Download what was laid there by hand; the source that it is here."""
    bucket = Bucket(place.bucket, S3Settings())
    names = {item.key: item.key.removeprefix(place.prefix).strip("/") for item in objects}
    if list(names.values()) == [""] and place.prefix.endswith(D4RL_ENDINGS):
        scheme, local = "d4rl", folder / Path(place.prefix).name
    elif "info.json" in names.values():
        scheme, local = "transitions", folder
    else:
        raise InputError(
            f"dataset {place.uri}: {', '.join(list(names.values())[:3])} is no D4RL file and no folder of "
            f"transitions; push other data: unio4 dataset push minari:<id> {place.uri}"
        )
    for key, name in names.items():
        bucket.bring(key, folder / name if name else local)
    return f"{scheme}:{quote(str(local))}"
