"""A release on a cluster, by Helm and kubectl."""

import base64
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "charts" / "unio4"


class StepFailedError(Exception):
    """What a step found wrong, in one line."""


@dataclass(frozen=True)
class Cluster:
    """One release on one cluster."""

    kubeconfig: Path
    namespace: str
    release: str
    kfp_namespace: str
    timeout: int

    @property
    def prefix(self) -> str:
        """The chart's prefix of names for this release."""
        return self.release if "unio4" in self.release else f"{self.release}-unio4"

    def kubectl(self, *arguments: str, namespace: str | None = None) -> str:
        """Output of kubectl; its complaint becomes the step's."""
        command = [*self._kubectl(namespace), *arguments]
        asked = f"kubectl {' '.join(arguments)}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout)
        except subprocess.TimeoutExpired:  # a volume, say, that a pod still holds
            raise StepFailedError(f"{asked}: not done after {self.timeout} s") from None
        if done.returncode:
            raise StepFailedError(f"{asked}: {done.stderr.strip()}")
        return done.stdout

    def read(self, *what: str) -> Any:
        """Objects of the release's namespace."""
        return json.loads(self.kubectl("get", *what, "--output=json"))

    def secret(self, name: str) -> dict[str, str]:
        """What a secret holds; nothing where there is none."""
        [*found] = self.read("secrets", f"--field-selector=metadata.name={name}")["items"]
        data = found[0]["data"] if found else {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    @contextmanager
    def helm(self) -> Iterator[Any]:
        """Helm on this cluster; its errors become the step's."""
        import helm_python

        with helm_python.Config(kubeconfig_path=self.kubeconfig, namespace=self.namespace) as config:
            try:
                yield config
            except helm_python.errors.HelmError as error:
                raise StepFailedError(f"helm: {error}") from error

    @contextmanager
    def forward(self, service: str, port: int, namespace: str | None = None) -> Iterator[str]:
        """Address of a service on a free port of this machine."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            here = probe.getsockname()[1]
        command = [*self._kubectl(namespace), "port-forward", f"service/{service}", f"{here}:{port}"]
        over = threading.Event()
        thread = threading.Thread(target=_repeat, args=(command, over))
        thread.start()
        try:
            wait_for_port(here)
            yield f"http://127.0.0.1:{here}"
        finally:
            over.set()
            thread.join()

    def _kubectl(self, namespace: str | None) -> list[str]:
        return ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace or self.namespace}"]


def _repeat(command: list[str], over: threading.Event) -> None:
    """kubectl forwards to one pod and ends with it: begun again, it finds the pod that took its place."""
    while not over.is_set():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and not over.wait(0.5):
            pass
        process.terminate()
        process.wait(10)
        over.wait(1)


def wait_for_port(port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise StepFailedError(f"kubectl port-forward: nobody answers on port {port}") from None
            time.sleep(0.2)
