"""Try the chart and the pipelines on a cluster that has Kubeflow Pipelines (`make test-cluster`).

Each step says in one line what it saw; the first that fails ends it with exit code 1, and leaves the release
for a look. Helm is the Python package's, so that only kubectl must be there. See docs/cluster.md.
"""

import argparse
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "charts" / "unio4" / "files" / "scripts"), str(ROOT / "tests" / "unit")]

from cluster import CHART, Cluster, StepFailedError  # noqa: E402
from cluster_runs import DATASET, MISSING, PARENT, opened, tags  # noqa: E402
from services import RefusedError  # noqa: E402

log = logging.getLogger("try-chart")
UNDER_WAY = re.compile(r"clone-behavior: [\d,]+/[\d,]+ \(.+ left\)")  # ten seconds after it began


@dataclass(frozen=True)
class Trial:
    """One release and how to reach what belongs to it."""

    cluster: Cluster
    values: dict[str, Any]
    kfp: str | None
    mlflow: str | None
    stamp: str

    def opened(self) -> Any:
        many_users = bool((self.values.get("kfp") or {}).get("multiUser"))
        return opened(self.cluster, self.kfp, self.mlflow, many_users=many_users)

    def name(self, what: str) -> str:
        return f"{what}-{self.stamp}"


def install(trial: Trial, **more: Any) -> str:
    """Install or upgrade, and wait until every pod is ready and every job has ended."""
    began = time.monotonic()
    cluster = trial.cluster
    cluster.kubectl("get", "service", "ml-pipeline", namespace=cluster.kfp_namespace)
    with cluster.helm() as helm:
        there = any(release["name"] == cluster.release for release in helm.list())
        act = helm.upgrade if there else helm.install
        options = {"namespace": cluster.namespace, "wait": "watcher", "timeout": cluster.timeout}
        act(CHART, cluster.release, trial.values | more, **options)
    return f"{'upgraded' if there else 'installed'} in {time.monotonic() - began:.0f} s"


def run_release_test(trial: Trial) -> str:
    """`helm test`, with the log of its pod."""
    with trial.cluster.helm() as helm:
        said = helm.test(trial.cluster.release, logs=True, timeout=trial.cluster.timeout)["logs"]
    return "; ".join(line for line in said.splitlines() if line.startswith("ok"))


def run_whole(trial: Trial) -> str:
    """The whole method, offline and online."""
    with trial.opened() as place:
        name = trial.name("whole")
        place.finish(place.start("submit", name, f"--dataset={DATASET}"), expected=0)
        _, nested = place.run(name, "FINISHED")
    if not any("finetune-online" in one for one in nested):
        raise StepFailedError(f"MLflow's nested runs are {nested}; finetune-online is missing")
    return f"FINISHED in MLflow, with {', '.join(nested)}"


def run_failing(trial: Trial) -> str:
    """A dataset that is not there: the reason is told at both ends."""
    with trial.opened() as place:
        name = trial.name("failing")
        said = place.finish(place.start("submit", name, f"--dataset={MISSING}"), expected=1)
        found, _ = place.run(name, "FAILED")
    reason = found.get("unio4.error", "")
    for told in (said, reason):
        if MISSING.partition(":")[2] not in told:
            raise StepFailedError(f"the reason is not told: unio4 says {said!r}, MLflow {reason!r}")
    return f"FAILED in MLflow: {reason}"


def run_offline(trial: Trial) -> str:
    """The other branch of the gate: nothing online."""
    with trial.opened() as place:
        name = trial.name("offline")
        place.finish(place.start("submit", name, f"--dataset={DATASET}", "--finetune=never"), expected=0)
        _, nested = place.run(name, "FINISHED")
    if any("finetune-online" in one for one in nested):
        raise StepFailedError(f"the gate was closed, and yet there is {nested}")
    return f"FINISHED in MLflow, with {', '.join(nested)}"


def run_preempted(trial: Trial) -> str:
    """A stage whose pod is deleted goes on in another one."""
    with trial.opened() as place:
        name, function = trial.name("preempted"), "clone_behavior"
        options = (f"--dataset={DATASET}", "--no-reuse")
        longer = {"behavior__steps": 60_000, "behavior__evaluate_every": 5_000, "checkpoint_seconds": 1}
        process = place.start("submit", name, *options, **longer)
        assert process.stdout is not None
        run_id = process.stdout.readline().strip().rpartition("/")[2]
        [pod] = place.wait(process, f"a pod of {function}", lambda: place.pods(run_id, function)[:1])

        def under_way() -> re.Match[str] | None:
            return UNDER_WAY.search(trial.cluster.kubectl("logs", pod, "--container=main"))

        seen = place.wait(process, f"progress of {pod}", under_way)[0]
        trial.cluster.kubectl("delete", "pod", pod)
        place.finish(process, expected=0)
        place.run(name, "FINISHED")
        [*others] = [one for one in place.pods(run_id, function) if one != pod]
        logs = [trial.cluster.kubectl("logs", one, "--container=main") for one in others]
    if not any("clone-behavior: resumed from its last checkpoint" in text for text in logs):
        raise StepFailedError(f"{pod} was deleted, and of {others} none says that it resumed")
    return f"{pod} was deleted at {seen!r}, {others[-1]} resumed from its checkpoint"


def run_sweep(trial: Trial) -> str:
    """A good member and a bad one: both are told of, and none stays open."""
    with trial.opened() as place:
        name = trial.name("sweep")
        datasets = (f"--dataset={DATASET}", f"--dataset={MISSING}")
        process = place.start("sweep", name, "--runner=kfp", *datasets, "--seeds=0")
        said = place.finish(process, expected=1)
        members = [run for run in place.runs() if tags(run)["mlflow.runName"].startswith(f"{name} ")]
    states = sorted(run["info"]["status"] for run in members if PARENT not in tags(run))
    if states != ["FAILED", "FINISHED"]:
        raise StepFailedError(
            f"MLflow has members with the states {states}; expected one FAILED, one FINISHED"
        )
    return said


def upgrade(trial: Trial) -> str:
    """Every pod is replaced; what MLflow knew it knows."""
    return _kept(trial, lambda: install(trial, podAnnotations={"upgraded": trial.stamp}))


def install_again(trial: Trial) -> str:
    """Uninstalled and installed under the same name, a release finds its data."""
    return _kept(trial, lambda: f"{_remove(trial)}, {install(trial)}")


def _kept(trial: Trial, act: Callable[[], str]) -> str:
    with trial.opened() as place:
        before = {run["info"]["run_id"] for run in place.runs()}
    done = act()
    with trial.opened() as place:
        after = {run["info"]["run_id"] for run in place.runs()}
    if before - after:
        raise StepFailedError(f"{len(before - after)} of {len(before)} runs are gone")
    return f"{done}; all {len(after)} runs are there; {run_release_test(trial)}"


def _remove(trial: Trial) -> str:
    cluster = trial.cluster
    with cluster.helm() as helm:
        helm.uninstall(cluster.release, timeout=cluster.timeout)
    mine = f"--selector=app.kubernetes.io/instance={cluster.release}"
    left = cluster.kubectl(
        "get", "deployments,statefulsets,services,configmaps,cronjobs", mine, "--output=name"
    )
    if left.strip():
        raise StepFailedError(f"left after uninstalling: {', '.join(left.split())}")
    return "uninstalled"


def uninstall(trial: Trial) -> str:
    """The release goes; then what it leaves on purpose (volumes, secrets, failed jobs, the test's pod)."""
    done = _remove(trial)
    mine = f"--selector=app.kubernetes.io/instance={trial.cluster.release}"
    gone = trial.cluster.kubectl("delete", "jobs,pods,secrets,persistentvolumeclaims", mine, "--output=name")
    return f"{done}, and {len(gone.split())} objects that an uninstall keeps"


STEPS: dict[str, Callable[[Trial], str]] = {
    "install": install,
    "test": run_release_test,
    "whole": run_whole,
    "failing": run_failing,
    "offline": run_offline,
    "preempted": run_preempted,
    "sweep": run_sweep,
    "upgrade": upgrade,
    "again": install_again,
    "uninstall": uninstall,
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"), help="whose cluster")
    parser.add_argument("--namespace", default="kubeflow", help="where KFP runs pipelines")
    parser.add_argument("--kfp-namespace", default="kubeflow", help="where KFP itself runs")
    parser.add_argument("--release", default="unio4")
    parser.add_argument("--values", type=Path, default=CHART / "examples" / "laptop.yaml")
    parser.add_argument("--kfp-endpoint", help="instead of a port of kubectl's")
    parser.add_argument("--mlflow", help="its address, instead of a port of kubectl's")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for each step")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="only these")
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
    if not options.values.is_file():
        log.error("error: --values %s: no such file; charts/unio4/examples has some", options.values)
        return 2
    names = (options.namespace, options.release, options.kfp_namespace, options.timeout)
    cluster = Cluster(Path(options.kubeconfig), *names)
    values = yaml.safe_load(options.values.read_text()) or {}
    trial = Trial(cluster, values, options.kfp_endpoint, options.mlflow, time.strftime("%H%M%S"))
    for step in options.steps:
        try:
            log.info("%-10s %s", step, STEPS[step](trial))
        except (StepFailedError, RefusedError) as error:
            log.error("error: %s: %s", step, error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
