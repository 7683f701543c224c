"""Runs that start together, with one MLflow server and one S3 server for all of them."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from tiny_runs import run_arguments

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import open_store
from unio4_lib.tracking import spool

EXPERIMENT = "runs at once"
LONGEST_SECONDS = 1800.0
ALONE = 3  # of the runs, repeated with nobody beside them

Points = set[tuple[str, str, int, float]]  # stage, name, step, value


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    seed: int
    folder: Path
    summary: dict[str, Any]
    said: str

    @property
    def spool(self) -> Path:
        return self.folder / "tracking"

    def digests(self) -> dict[str, str]:
        """Of what it made; a report also shows how long others took."""
        stages = self.summary["stages"].items()
        return {name: facts["artifact_digest"] for name, facts in stages if name != "report"}


def command(dataset: str, output: Path, seed: int, **changed: str) -> list[str]:
    words = run_arguments(dataset, output, seed=seed)
    if "tracking" in changed:
        words[words.index("--tracking") + 1] = changed.pop("tracking")
    more = [part for name, value in changed.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "unio4_lib.cli", *words, *more, "--json"]


def together(count: int, dataset: str, folder: Path, root: str, tracking: str) -> list[Ended]:
    """All at once, on one machine with one cache."""
    output, environment = folder / "runs", {**os.environ, "UNIO4_CACHE": str(folder / "cache")}
    processes = []
    for seed in range(count):
        words = command(dataset, output, seed, tracking=tracking, artifact_root=root, experiment=EXPERIMENT)
        with (folder / f"{seed}.out").open("w") as out, (folder / f"{seed}.err").open("w") as err:
            processes.append(subprocess.Popen(words, stdout=out, stderr=err, env=environment))
    deadline = time.monotonic() + LONGEST_SECONDS
    ended = []
    try:
        for seed, process in enumerate(processes):
            code, said = process.wait(deadline - time.monotonic()), (folder / f"{seed}.err").read_text()
            assert code == 0, said
            summary = json.loads((folder / f"{seed}.out").read_text())
            ended.append(Ended(seed, output / summary["run_id"], summary, said))
    finally:
        for process in processes:
            process.kill()
    return ended


def deliver_the_rest(runs: list[Ended]) -> int:
    """Runs whose last numbers did not arrive while they waited, and have to be sent as their line says."""
    late = [run for run in runs if spool.count_waiting(run.spool)]
    for run in late:
        assert f"unio4 tracking flush {run.spool}" in run.said
        flush = [sys.executable, "-m", "unio4_lib.cli", "tracking", "flush", str(run.spool)]
        subprocess.run(flush, check=True, capture_output=True)
    return len(late)


def check_artifacts(runs: list[Ended], dataset: str, folder: Path, seed: int) -> None:
    """What stands in the store is whole, and what some of them make alone, too."""
    for run in runs:
        for path in (run.folder / "artifacts").glob("*.json"):
            ref = ArtifactRef.load(path)
            open_store(ref.root).verify(ref)
    for run in random.Random(seed).sample(runs, min(ALONE, len(runs))):
        ended = subprocess.run(
            command(dataset, folder / "alone", run.seed), capture_output=True, text=True, check=True
        )
        alone = Ended(run.seed, folder, json.loads(ended.stdout), ended.stderr)
        assert alone.digests() == run.digests(), run.seed


def check_tracking(runs: list[Ended], uri: str) -> int:
    """All have ended well in MLflow, and every number that was said is there once; how many these are."""
    client, points = MlflowClient(uri), 0
    experiment = client.get_experiment_by_name(EXPERIMENT)
    for run in runs:
        condition = f"tags.`unio4.run_key` = '{run.folder.name}'"
        found = client.search_runs([experiment.experiment_id], condition)
        assert {one.info.status for one in found} == {"FINISHED"}, run.seed
        assert len(found) == len(run.summary["stages"]) + 1, run.seed
        there = [point for one in found for point in _points(client, one)]
        assert len(there) == len(set(there)), run.seed
        assert set(there) == _said(run), run.seed
        assert not (run.spool / spool.REFUSED).exists(), run.seed
        points += len(there)
    return points


def _points(client: MlflowClient, run: Any) -> list[tuple[str, str, int, float]]:
    stage = run.data.tags["unio4.stage"]
    history = [
        point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)
    ]
    return [(stage, point.key, point.step, point.value) for point in history]


def _said(run: Ended) -> Points:
    """What the run wrote to its spool; said twice, the first counts."""
    said: dict[tuple[str, str, int], float] = {}
    for outbox in spool.outboxes(run.spool):
        stage = "run"
        for event, _ in spool.read_events(outbox):
            if event["kind"] == "begin":
                stage = event["stage"] or "run"
            elif event["kind"] == "metrics":
                for name, value in event["values"].items():
                    said.setdefault((stage, name, event["step"]), value)
    return {(*key, value) for key, value in said.items()}
