"""The local cache: fetched once, within its limit, never pulled away from under a reader."""

import multiprocessing
import os
import random
from pathlib import Path

import pytest
from made_artifacts import describe, flip_bit, make_folder

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.store import FolderStore, hold
from unio4_lib.errors import InputError

ROOM_FOR_TWO = 9000  # an artifact here has 3200 bytes and a manifest of about 800


@pytest.fixture
def digests(store: FolderStore, tmp_path: Path) -> list[str]:
    folders = [make_folder(tmp_path / f"made{seed}", seed) for seed in range(3)]
    return [store.publish(folder, describe(folder)).digest for folder in folders]


class Fetcher:
    """Fetches from a store and counts."""

    def __init__(self, store: FolderStore, digest: str) -> None:
        self.store, self.digest, self.calls = store, digest, 0

    def __call__(self, target: Path) -> None:
        self.calls += 1
        self.store.fetch(self.digest, target)


def use(cache: Cache, fetcher: Fetcher, when: float) -> None:
    with cache.hold(fetcher.digest, fetcher) as folder:
        assert (folder / "nets" / "weights.safetensors").stat().st_size == 3000
    os.utime(cache.root / f"{fetcher.digest}.lock", (when, when))


def test_least_recently_used_goes_first(store: FolderStore, digests: list[str], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", ROOM_FOR_TWO)
    a, b, c = (Fetcher(store, digest) for digest in digests)
    for when, fetcher in enumerate([a, b, a, c, a, b]):
        use(cache, fetcher, 1000.0 + when)
    # c drove out b, because a had been used since; b then drove out c.
    assert [fetcher.calls for fetcher in (a, b, c)] == [1, 2, 1]
    assert not (cache.root / c.digest).exists()


def test_what_is_in_use_stays(store: FolderStore, digests: list[str], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1)
    a, b = (Fetcher(store, digest) for digest in digests[:2])
    with cache.hold(a.digest, a) as first, cache.hold(b.digest, b) as second:
        assert first.exists()
        assert second.exists()
    c = Fetcher(store, digests[2])
    use(cache, c, 1000.0)
    assert [path.name for path in cache.root.iterdir() if path.is_dir()] == [c.digest]


def test_damage_is_seen_and_repaired(store: FolderStore, digests: list[str], tmp_path: Path) -> None:
    cache, fetcher, source = Cache(tmp_path / "cache"), Fetcher(store, digests[0]), random.Random(0)
    for when in range(4):
        use(cache, fetcher, 1000.0 + when)
        flip_bit(cache.root / fetcher.digest / "facts.json", source)
    assert fetcher.calls == 4


def test_a_failed_fetch_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def fail(target: Path) -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"), cache.hold("a" * 64, fail):
        pass
    assert [path for path in cache.root.iterdir() if path.is_dir()] == []


def work(cache: Cache, store: FolderStore, digests: list[str], log: Path, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(30):
        digest = source.choice(digests)

        def fill(target: Path, digest: str = digest) -> None:
            with log.open("a") as file:
                file.write(f"{digest}\n")
            store.fetch(digest, target)

        with cache.hold(digest, fill) as folder:
            for name, entry in store.manifest(digest).files.items():
                assert len((folder / name).read_bytes()) == entry.size


@pytest.mark.parametrize("limit", [10**9, 5000])
def test_two_processes(store: FolderStore, digests: list[str], tmp_path: Path, limit: int) -> None:
    cache, log = Cache(tmp_path / "cache", limit), tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(cache, store, digests, log, seed)) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    fetched = log.read_text().split()
    assert set(fetched) == set(digests)
    if limit > 5000:
        assert len(fetched) == 3


def test_a_folder_store_is_read_in_place(store: FolderStore, digests: list[str], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with hold(store, digests[0], cache) as folder:
        assert folder == store.place(digests[0])
    assert not cache.root.exists()
