"""Containers of the images that `make images` built, against real servers on this machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny_runs
from mlflow_process import MlflowServer
from servers import bucket, mlflow_home, rclone_program, s3_server, seaweedfs, weed_bucket

from unio4_lib.runs.spec import PipelineSpec, compiled

__all__ = ["bucket", "mlflow_home", "rclone_program", "s3_server", "seaweedfs", "weed_bucket"]


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
def mlflow_server(mlflow_home: MlflowServer) -> tuple[str, Path]:
    """Address and database of an MLflow server."""
    return mlflow_home.uri, mlflow_home.folder / "mlflow.db"


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
