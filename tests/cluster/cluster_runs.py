"""Runs on a cluster as a user starts them, and what MLflow says of them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cluster import Cluster, StepFailedError
from services import Http, basic_auth_of, wait_for
from tiny_settings import SETTINGS

Found = TypeVar("Found")

API = "/api/2.0/mlflow"
PARENT = "mlflow.parentRunId"
EXPERIMENT = "unio4-chart-test"
# Returns that differ, which the critics need, and no policy to be trained first.
DATASET = "collect:InvertedPendulum-v5?level=random&steps=2000&seed=0"
MISSING = "minari:nobody/has-this-v0"
UNIO4 = Path(sys.executable).parent / "unio4"


@dataclass(frozen=True)
class Place:
    """What a user of a release has: KFP, MLflow, and the pipelines that the chart registered."""

    cluster: Cluster
    kfp: str
    mlflow: Http
    pipeline: dict[str, Any]
    many_users: bool  # whether KFP has namespaces of users

    def start(self, command: str, name: str, *options: str, **changed: Any) -> subprocess.Popen[str]:
        """``unio4 submit`` or ``sweep`` at tiny size, until its end."""
        known = self.pipeline
        defaults = {
            name: one.get("defaultValue")
            for name, one in known["root"]["inputDefinitions"]["parameters"].items()
        }
        settings = SETTINGS | {key.replace("__", "."): value for key, value in changed.items()}
        line = [
            str(UNIO4),
            command,
            f"--registered={known['pipelineInfo']['name']}",
            f"--endpoint={self.kfp}",
        ]
        line += [f"--service-account={self.cluster.prefix}-pipeline", f"--experiment={EXPERIMENT}", "--wait"]
        line += [f"--artifact-root={defaults['artifact_root']}"]
        line += [f"--tracking={defaults['mlflow_tracking_uri']}"]
        line += [f"--namespace={self.cluster.namespace}"] if self.many_users else []
        line += [f"--{'run-name' if command == 'submit' else 'name'}={name}", *options]
        line += [f"--set={key}={json.dumps(value)}" for key, value in settings.items() if key != "seed"]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str], expected: int) -> str:
        """Waits for the end; gives the last line of what was said."""
        try:
            _, said = process.communicate(timeout=self.cluster.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise StepFailedError(f"the run has not ended after {self.cluster.timeout} s") from None
        last = next(reversed(said.strip().splitlines()), "")
        if process.returncode != expected:
            raise StepFailedError(f"exit code {process.returncode}, expected {expected}: {last}")
        return last

    def runs(self, condition: str = "") -> list[dict[str, Any]]:
        """MLflow's runs of these tests."""
        known = self._ask("GET", "experiments/get-by-name", experiment_name=EXPERIMENT)
        asked = {"experiment_ids": [known["experiment"]["experiment_id"]], "max_results": 1000}
        return list(self._ask("POST", "runs/search", asked | {"filter": condition}).get("runs", []))

    def _ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """A pod that is being replaced may still have been the one that kubectl led to."""
        return wait_for("MLflow", lambda: self.mlflow.call(method, f"{API}/{path}", body, **query))

    def run(self, name: str, expected: str) -> tuple[dict[str, str], list[str]]:
        """Tags of a run that has ended as expected, and the names of its nested runs."""
        found = self.runs(f"attributes.run_name = '{name}'")
        states = [run["info"]["status"] for run in found]
        if states != [expected]:
            raise StepFailedError(f"MLflow has runs {name} with the states {states}; expected one {expected}")
        nested = self.runs(f"tags.`{PARENT}` = '{found[0]['info']['run_id']}'")
        names = sorted(tags(run)["mlflow.runName"] for run in nested)
        return tags(found[0]), names

    def pods(self, run_id: str, function: str) -> list[str]:
        """Names of a run's pods that run a component, the oldest first."""
        found = self.cluster.read("pods", f"--selector=pipeline/runid={run_id}")["items"]
        found.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        return [
            pod["metadata"]["name"]
            for pod in found
            if "container-impl" in pod["metadata"]["name"]
            and function in json.dumps(pod["spec"]["containers"])
            and pod.get("status", {}).get("phase") != "Pending"
        ]

    def wait(self, process: subprocess.Popen[str], what: str, look: Callable[[], Found | None]) -> Found:
        """What is looked for again and again, as long as the command is at work that started the run."""
        deadline = time.monotonic() + self.cluster.timeout
        while not (found := look()):
            if process.poll() is not None:
                self.finish(process, expected=0)
                raise StepFailedError(f"the run has ended, and {what} was not seen")
            if time.monotonic() > deadline:
                process.kill()
                raise StepFailedError(f"{what} was not seen in {self.cluster.timeout} s")
            time.sleep(2)
        return found


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in run["data"].get("tags", [])}


@contextmanager
def opened(cluster: Cluster, kfp: str | None, mlflow: str | None, *, many_users: bool) -> Iterator[Place]:
    """The release as it is now; addresses that are not given are forwarded by kubectl."""
    with ExitStack() as stack:
        kfp = kfp or stack.enter_context(cluster.forward("ml-pipeline", 8888, cluster.kfp_namespace))
        mlflow = mlflow or stack.enter_context(cluster.forward(f"{cluster.prefix}-mlflow", 5000))
        compiled = cluster.read("configmap", f"{cluster.prefix}-pipelines")["data"]["unio4.yaml"]
        spec = next(yaml.load_all(compiled, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        login = cluster.secret(f"{cluster.prefix}-mlflow")
        headers = basic_auth_of(login.get("MLFLOW_TRACKING_USERNAME"), login.get("MLFLOW_TRACKING_PASSWORD"))
        yield Place(cluster, kfp, Http("MLflow", mlflow, lambda: headers), spec, many_users)
