"""Publishing into a folder: whole or not at all, and nothing damaged is ever read."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from made_artifacts import describe, flip_bit, make_folder

from unio4_lib.artifacts import folder_store, integrity
from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest
from unio4_lib.artifacts.store import FolderStore, S3Store, open_store
from unio4_lib.errors import InputError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def age(path: Path, seconds: float) -> None:
    for found in [path, *path.rglob("*")]:
        os.utime(found, (time.time() - seconds,) * 2)


def test_round_trip(store: FolderStore, folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    assert store.list_artifacts() == []
    assert not store.exists(manifest.digest)
    ref = store.publish(folder, manifest)
    assert store.publish(folder, manifest) == ref
    assert store.list_artifacts() == [ref]
    assert store.exists(ref.digest)
    assert store.verify(ref) == manifest
    target = store.fetch(ref, tmp_path / "got")
    assert contents(target) == {**contents(folder), MANIFEST_FILE: manifest.to_bytes()}
    assert store.fetch(ref.digest, target) == target
    store.delete(ref.digest)
    assert store.list_artifacts() == []
    with pytest.raises(InputError, match=r"manifest.json: no manifest"):
        store.fetch(ref, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_reference_must_agree_with_its_artifact(
    store: FolderStore, folder: Path, manifest: Manifest
) -> None:
    ref = store.publish(folder, manifest)
    for change in ({"kind": "critics"}, {"bytes": 1}, {"producer": "report"}):
        with pytest.raises(InputError, match=f"manifest.json: {next(iter(change))} is .*reference says"):
            store.verify(ref.model_copy(update=change))


def test_200_flipped_bits_are_all_detected_and_named(
    store: FolderStore, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    ref = store.publish(folder, manifest)
    place, source = store.place(ref.digest), random.Random(0)
    files = [place / name for name in contents(place) if (place / name).stat().st_size]
    assert len(files) == 3
    for number in range(200):
        path = source.choices(files, [file.stat().st_size for file in files])[0]
        if number % 4 == 0:
            path = place / MANIFEST_FILE
        whole = path.read_bytes()
        flip_bit(path, source)
        with pytest.raises(InputError, match=f"{path.relative_to(place)}: "):
            store.verify(ref)
        with pytest.raises(InputError, match=f"{path.relative_to(place)}: "):
            store.fetch(ref, tmp_path / "got")
        assert not (tmp_path / "got").exists()
        path.write_bytes(whole)
    store.verify(ref)


def test_missing_extra_and_cut_files_are_named(store: FolderStore, folder: Path, manifest: Manifest) -> None:
    ref = store.publish(folder, manifest)
    place = store.place(ref.digest)
    weights = place / "nets" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"nets/weights.safetensors: 2999 bytes, .* says 3000"):
        store.verify(ref)
    weights.unlink()
    with pytest.raises(InputError, match=r"nets/weights.safetensors: missing"):
        store.verify(ref)
    weights.write_bytes(whole)
    (place / "more.txt").write_text("?")
    with pytest.raises(InputError, match=r"more.txt: not listed"):
        store.verify(ref)
    # Publishing the same content again repairs it.
    assert store.publish(folder, manifest) == ref
    store.verify(ref)


def test_a_folder_that_changed_since_it_was_described_is_not_published(
    store: FolderStore, folder: Path, manifest: Manifest
) -> None:
    flip_bit(folder / "facts.json", random.Random(0))
    with pytest.raises(InputError, match=r"facts.json: sha256"):
        store.publish(folder, manifest)
    assert store.list_artifacts() == []
    assert list((store.root / folder_store.STAGING).iterdir()) == []


def publish_and_stop(root: Path, folder: Path, step: int) -> None:
    """Publish, and die at the n-th point that a disk could have seen."""
    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sync = os.fsync
    os.fsync = lambda handle: (die(), sync(handle))[1]  # type: ignore
    FolderStore(root).publish(folder, describe(folder))


def test_killed_at_any_point_it_is_there_whole_or_not_at_all(
    store: FolderStore, folder: Path, manifest: Manifest
) -> None:
    spawn, codes = multiprocessing.get_context("fork"), []
    for step in range(1, 12):
        process = spawn.Process(target=publish_and_stop, args=(store.root, folder, step))
        process.start()
        process.join()
        codes.append(process.exitcode)
        if store.exists(manifest.digest):
            store.verify(manifest.digest)
            store.delete(manifest.digest)
        else:
            assert store.list_artifacts() == []
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0  # there are no more points: all were tried
    age(store.root, 100)
    assert store.gc([], older_than=50)
    assert list((store.root / folder_store.STAGING).iterdir()) == []
    store.publish(folder, manifest)
    store.verify(manifest.digest)


def publish_many(root: Path, folder: Path) -> None:
    for _ in range(20):
        FolderStore(root).publish(folder, describe(folder))


def test_two_publishers_of_the_same_content(store: FolderStore, folder: Path, manifest: Manifest) -> None:
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=publish_many, args=(store.root, folder)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert store.verify(manifest.digest).files == manifest.files
    assert list((store.root / folder_store.STAGING).iterdir()) == []


def test_the_slower_of_two_publishers_finds_it_done(
    store: FolderStore, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = integrity.copy_verified

    def overtaken(*values: object) -> None:
        monkeypatch.setattr(folder_store, "copy_verified", copy)
        FolderStore(store.root).publish(folder, manifest)
        copy(*values)  # type: ignore

    monkeypatch.setattr(folder_store, "copy_verified", overtaken)
    assert store.publish(folder, manifest).digest == manifest.digest
    store.verify(manifest.digest)


def test_collection_keeps_what_is_kept_its_inputs_and_the_young(store: FolderStore, tmp_path: Path) -> None:
    def publish(seed: int, **inputs: str) -> str:
        made = make_folder(tmp_path / str(seed), seed)
        return store.publish(made, describe(made, inputs=inputs)).digest

    dataset = publish(1)
    policy = publish(2, dataset=dataset)
    final = publish(3, policy=policy)
    alone, young = publish(4), publish(5)
    half = store.root / "artifacts" / ("f" * 64)
    half.mkdir()
    (half / "weights").write_bytes(b"1")
    for folder in (store.root / "artifacts").iterdir():
        if folder.name != young:
            age(folder, 100)
    assert sorted(store.gc([final], older_than=50)) == sorted([alone, "f" * 64])
    assert {ref.digest for ref in store.list_artifacts()} == {dataset, policy, final, young}
    # Asked for again, it is young again.
    store.publish(tmp_path / "1", describe(tmp_path / "1"))
    assert dataset not in store.gc([], older_than=50)
    assert {ref.digest for ref in store.list_artifacts()} == {dataset, young}


def test_small_things_are_checked(store: FolderStore) -> None:
    key, source = "checkpoints/f/state-0.ckpt", random.Random(1)
    assert store.get_bytes(key) is None
    store.put_bytes(key, b"first")
    data = source.randbytes(500)
    store.put_bytes(key, data)
    assert store.get_bytes(key) == data
    path = store.root / key
    whole = path.read_bytes()
    for _ in range(200):
        flip_bit(path, source)
        with pytest.raises(InputError, match=r"state-0\.ckpt: "):
            store.get_bytes(key)
        path.write_bytes(whole[: source.randrange(len(whole))])
        with pytest.raises(InputError, match=r"state-0\.ckpt: "):
            store.get_bytes(key)
        path.write_bytes(whole)
    store.delete_bytes(key)
    store.delete_bytes(key)
    assert store.get_bytes(key) is None
    with pytest.raises(InputError, match="not a plain relative path"):
        store.put_bytes("../outside", b"")


def test_a_root_that_cannot_be_written(folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        FolderStore(tmp_path / "file").publish(folder, manifest)


def test_which_store_a_root_is(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    found = open_store("s3://bucket/a/b/")
    assert isinstance(found, S3Store)
    assert (found.uri, found.bucket.name, found.prefix) == ("s3://bucket/a/b", "bucket", "a/b")
    assert open_store("s3://bucket").uri == "s3://bucket"
    for root in ("s3://", "gs://bucket", "http://host/x"):
        with pytest.raises(InputError, match="expected"):
            open_store(root)
