"""Containers of the images that `make images` built, against real servers on this machine."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_runs

from unio4_lib.pipeline.spec import PipelineSpec, compiled

# The S3 server and its buckets are those of the other services' tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
from services.conftest import bucket, free_port, rclone_program, s3_server

__all__ = ["bucket", "rclone_program", "s3_server"]


@pytest.fixture(scope="session")
def images() -> None:
    """All images of the pipeline are here."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon")
    spec = PipelineSpec.load(compiled("unio4"))
    for component in ("finetune-online", "improve-policy", "clone-behavior", "close-run"):
        found = subprocess.run(["docker", "image", "inspect", spec.image(component)], capture_output=True)
        if found.returncode:
            pytest.skip(f"no image {spec.image(component)}: make images")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and database of an MLflow server."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None, (folder / "log.txt").read_text()
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log.txt").read_text()
                time.sleep(0.5)
        yield uri, folder / "mlflow.db"
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small dataset in a folder that the user of the containers may read."""
    source = tiny_runs.record(tmp_path / "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return source
