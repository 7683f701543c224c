"""Artifacts in a real S3 server, on good days and on bad ones."""

import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_proxy import EVERYTHING, IMPATIENT_SECONDS, FaultyProxy

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.manifest import MANIFEST_FILE, Manifest
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import MEBIBYTE, S3Settings, StoreUnavailable
from unio4_lib.artifacts.s3_store import S3Store
from unio4_lib.artifacts.s3_transfer import Bucket, Download
from unio4_lib.artifacts.store import hold
from unio4_lib.errors import InputError
from unio4_lib.learning.checkpoint import Checkpointer

pytest.importorskip("boto3", reason='no boto3: pip install "unio4[s3]"')
pytestmark = pytest.mark.services

# Six MiB in chunks of one: several parts up, several ranges down. A busy machine is slow, and no fault.
SETTINGS = S3Settings(threads=4, chunk_bytes=MEBIBYTE, attempts=6, pause=0.02)
BIG = 6 * MEBIBYTE + 1234


@pytest.fixture
def store(bucket: Path) -> S3Store:
    return S3Store(bucket.name, "runs/a", SETTINGS)


@pytest.fixture
def impatient(store: S3Store) -> S3Store:
    """The same one for whoever must not wait as long as a fault stalls."""
    return S3Store(store.bucket.name, store.prefix, replace(SETTINGS, read_timeout=IMPATIENT_SECONDS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made, source = tmp_path / "made", random.Random(0)
    (made / "nets").mkdir(parents=True)
    (made / "nets" / "weights.safetensors").write_bytes(source.randbytes(BIG))
    (made / "facts.json").write_bytes(source.randbytes(900))
    (made / "empty.txt").write_bytes(b"")
    return made


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return Manifest.of_folder(folder, kind="policy", stage="improve-policy", config_digest="c" * 64)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def place(bucket: Path, digest: str) -> Path:
    return bucket / "runs" / "a" / "artifacts" / digest


def test_round_trip(store: S3Store, folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    assert store.list_artifacts() == []
    assert not store.exists(manifest.digest)
    ref = store.publish(folder, manifest)
    assert store.exists(ref.digest)
    assert store.list_artifacts() == [ref]
    assert store.verify(ref) == manifest
    target = store.fetch(ref, tmp_path / "got")
    assert contents(target) == {**contents(folder), MANIFEST_FILE: manifest.to_bytes()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got", "made"]
    with pytest.raises(InputError, match=r"manifest\.json: kind is 'policy', the reference says 'critics'"):
        store.fetch(ref.model_copy(update={"kind": "critics"}), tmp_path / "other")
    store.delete(ref.digest)
    assert store.list_artifacts() == []
    with pytest.raises(InputError, match=rf"^{store.uri}/artifacts/.*/manifest\.json: no manifest"):
        store.fetch(ref, tmp_path / "other")


def test_what_is_there_is_not_sent_again(
    proxy: FaultyProxy, store: S3Store, folder: Path, manifest: Manifest
) -> None:
    store.publish(folder, manifest)
    proxy.requests.clear()
    store.publish(folder, manifest)
    sent = [path for method, path in proxy.requests if method in ("PUT", "POST")]
    assert [path.rsplit("/", 1)[-1] for path in sent] == [MANIFEST_FILE]


def test_200_flipped_bits_are_all_detected_and_named(bucket: Path, tmp_path: Path) -> None:
    store = S3Store(bucket.name, "runs/a", replace(SETTINGS, pause=0.0))
    made, source = tmp_path / "small", random.Random(0)
    made.mkdir()
    for name, size in (("a.bin", 700), ("b.bin", 300)):
        (made / name).write_bytes(source.randbytes(size))
    manifest = Manifest.of_folder(made, kind="policy", stage="report", config_digest="c" * 64)
    ref = store.publish(made, manifest)
    files = ["a.bin", "b.bin", MANIFEST_FILE]
    for number in range(200):
        path = place(bucket, ref.digest) / files[number % 3]
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=f"{store.uri}/artifacts/{ref.digest}/{path.name}: "):
            store.fetch(ref, tmp_path / f"got{number}")
        assert not (tmp_path / f"got{number}").exists()
        path.write_bytes(whole)
    store.verify(ref)


def test_cut_missing_extra_and_half_written(
    store: S3Store, bucket: Path, folder: Path, manifest: Manifest
) -> None:
    ref = store.publish(folder, manifest)
    facts = place(bucket, ref.digest) / "facts.json"
    whole = facts.read_bytes()
    facts.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"facts\.json: 899 bytes, manifest\.json says 900"):
        store.verify(ref)
    facts.unlink()
    with pytest.raises(InputError, match=r"facts\.json: missing"):
        store.verify(ref)
    facts.write_bytes(whole)
    (facts.parent / "more.txt").write_text("?")
    with pytest.raises(InputError, match=r"more\.txt: not listed"):
        store.verify(ref)
    (facts.parent / MANIFEST_FILE).unlink()
    assert store.list_artifacts() == []
    with pytest.raises(InputError, match="never published whole"):
        store.verify(ref)


def publish_slowly(store: S3Store, folder: Path, manifest: Manifest, stop_at: int) -> None:
    """Publish, and die before the n-th request."""
    from botocore.httpsession import URLLib3Session

    send, sent = URLLib3Session.send, [0]

    def send_or_die(self: URLLib3Session, request: object) -> object:
        sent[0] += 1
        if sent[0] == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return send(self, request)

    URLLib3Session.send = send_or_die
    store.publish(folder, manifest)


def test_a_publisher_killed_in_the_middle_leaves_nothing_visible(
    store: S3Store, folder: Path, manifest: Manifest, bucket: Path
) -> None:
    fork, codes = multiprocessing.get_context("fork"), []
    for stop_at in (1, 3, 5, 7, 9, 11, 13, 99):
        process = fork.Process(target=publish_slowly, args=(store, folder, manifest, stop_at))
        process.start()
        process.join()
        codes.append(process.exitcode)
        if process.exitcode:
            assert not store.exists(manifest.digest)
            assert store.list_artifacts() == []
    assert codes[0] == codes[3] == -signal.SIGKILL
    assert codes[-1] == 0
    store.verify(manifest.digest)
    (place(bucket, manifest.digest) / MANIFEST_FILE).unlink()
    assert store.gc([], older_than=3600) == []
    time.sleep(0.05)
    assert store.gc([manifest.digest], older_than=0.01) == [manifest.digest]
    assert list(store.bucket.listing("")) == []


def publish_often(store: S3Store, folder: Path) -> None:
    for _ in range(5):
        described = Manifest.of_folder(folder, kind="policy", stage="improve-policy", config_digest="c" * 64)
        store.publish(folder, described)


def test_two_publishers_of_the_same_content(
    store: S3Store, folder: Path, manifest: Manifest, bucket: Path
) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=publish_often, args=(store, folder)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [ref.digest for ref in store.list_artifacts()] == [manifest.digest]
    store.verify(manifest.digest)


def test_collection_keeps_what_is_kept_and_its_inputs(store: S3Store, tmp_path: Path) -> None:
    def publish(name: str, **inputs: str) -> ArtifactRef:
        made = tmp_path / name
        made.mkdir()
        (made / "file").write_text(name)
        values = {"kind": "policy", "stage": "report", "config_digest": "c" * 64}
        return store.publish(made, Manifest.of_folder(made, **values, inputs=inputs))  # type: ignore

    dataset = publish("dataset")
    final, alone = publish("final", dataset=dataset.digest), publish("alone")
    assert store.gc([final.digest], older_than=3600) == []
    time.sleep(0.05)
    assert store.gc([final.digest], older_than=0.01) == [alone.digest]
    assert {ref.digest for ref in store.list_artifacts()} == {dataset.digest, final.digest}


@pytest.mark.parametrize("fault", [*EVERYTHING, "stale"])
def test_what_is_transient_is_survived_by_a_download(
    fault: str, proxy: FaultyProxy, impatient: S3Store, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    store = impatient
    ref = store.publish(folder, manifest)
    # The bytes of a file, and whatever is asked first.
    proxy.plan(fault, "GET", 1 if fault == "stall" else 3, "weights.safetensors")
    proxy.plan(fault, "GET")
    assert contents(store.fetch(ref, tmp_path / "got")).items() >= contents(folder).items()
    assert proxy.met == [fault] * (2 if fault == "stall" else 4)


@pytest.mark.parametrize("fault", ["500", "503", "reset", "truncate", "stall"])
def test_what_is_transient_is_survived_by_an_upload(
    fault: str, proxy: FaultyProxy, impatient: S3Store, folder: Path, manifest: Manifest
) -> None:
    store = impatient
    times = 1 if fault == "stall" else 3
    proxy.plan(fault, "PUT", times)
    ref = store.publish(folder, manifest)
    assert proxy.met == [fault] * times
    store.verify(ref)


def test_everything_at_once(
    proxy: FaultyProxy, impatient: S3Store, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    proxy.chance, proxy.source = 0.25, random.Random(3)
    store = impatient
    ref = store.publish(folder, manifest)
    assert contents(store.fetch(ref, tmp_path / "got")).items() >= contents(folder).items()
    assert len(proxy.met) >= 3


def test_a_broken_download_goes_on_where_it_stood(
    proxy: FaultyProxy, store: S3Store, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    ref = store.publish(folder, manifest)
    name, entry = next((name, entry) for name, entry in manifest.files.items() if entry.size == BIG)
    bucket = Bucket(store.bucket.name, replace(SETTINGS, attempts=1))
    partial = tmp_path / ".got.partial" / ref.digest / name
    download = Download(bucket, f"runs/a/artifacts/{ref.digest}/{name}", partial, entry.size)
    for start in download.missing()[:4]:
        download.fetch(start)
    proxy.plan("503", "GET", 3)
    with pytest.raises(StoreUnavailable, match="still fails after one attempt"):
        download.fetch(download.missing()[0])
    proxy.plans.clear()
    proxy.requests.clear()
    assert contents(store.fetch(ref, tmp_path / "got")).items() >= contents(folder).items()
    ranges = [
        path for method, path in proxy.requests if method == "GET" and path.endswith("weights.safetensors")
    ]
    assert len(ranges) == 3  # of seven


def test_a_store_that_stays_away_ends_with_one_line(
    proxy: FaultyProxy, store: S3Store, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    ref = store.publish(folder, manifest)
    store = S3Store(store.bucket.name, store.prefix, replace(SETTINGS, attempts=2, pause=0.0))
    for fault in ("503", "flip"):
        proxy.plans.clear()
        proxy.plan(fault, "GET", 1000)
        with pytest.raises(InputError) as raised:
            store.fetch(ref, tmp_path / "got")
        assert "\n" not in str(raised.value)
        assert str(raised.value).startswith(f"{store.uri}/artifacts/{ref.digest}/")
        assert not (tmp_path / "got").exists()
    proxy.plans.clear()
    store.fetch(ref, tmp_path / "got")


def test_wrong_credentials_bucket_gone_and_nobody_there(
    store: S3Store, bucket: Path, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, attempts=2, pause=0.0)

    def line(name: str = bucket.name) -> str:
        with pytest.raises(InputError) as raised:
            S3Store(name, "runs/a", settings).publish(folder, manifest)
        with pytest.raises(InputError):
            S3Store(name, "runs/a", settings).manifest(manifest.digest)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "no bucket 'b-gone' at http://127.0.0.1" in line("b-gone")
    with monkeypatch.context() as changed:
        changed.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in line()
        changed.setenv("AWS_ACCESS_KEY_ID", "nobody")
        assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in line()
        changed.delenv("AWS_ACCESS_KEY_ID")
        changed.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no credentials" in line()
    with monkeypatch.context() as changed:
        changed.setenv("AWS_PROFILE", "nobody")
        assert "check the AWS variables and files" in line()
    with monkeypatch.context() as changed:
        changed.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "http://127.0.0.1:9 cannot be reached after 2 attempts; check AWS_ENDPOINT_URL" in line()
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "boto3", None)
        assert 'pip install "unio4[s3]"' in line()


def test_cache_and_checkpoints(
    proxy: FaultyProxy, store: S3Store, folder: Path, manifest: Manifest, tmp_path: Path, bucket: Path
) -> None:
    ref = store.publish(folder, manifest)
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        with hold(store, ref, cache) as found:
            assert contents(found).items() >= contents(folder).items()
        if not _:
            proxy.requests.clear()
    assert proxy.requests == []
    proxy.plan("503", "PUT", 2)
    checkpointer = Checkpointer(0.0, tmp_path / "local", store, "checkpoints/f")
    assert checkpointer.load() is None
    checkpointer.save({"step": 1})
    assert checkpointer.flush(10)
    checkpointer.save({"step": 2})
    assert checkpointer.close(10)
    proxy.plan("flip", "GET")
    assert Checkpointer(0.0, tmp_path / "none", store, "checkpoints/f").load() == {"step": 2}
    for name in ("state-0.ckpt", "state-1.ckpt"):
        path = bucket / "runs/a/checkpoints/f" / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{store.uri}/checkpoints/f/state-.\.ckpt: its content"):
        Checkpointer(0.0, tmp_path / "none", store, "checkpoints/f").load()
