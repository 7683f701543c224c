"""Runs a compiled pipeline on this machine: side by side what is independent, again what was killed.

``kfp.local`` runs the same YAML, one task after another; docs/pipelines.md has the measurement.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unio4_lib.runs.launch import Launcher, follow
from unio4_lib.runs.spec import (
    Outputs,
    PipelineSpec,
    Scope,
    Values,
    fill,
    holds,
    inputs_of,
    items_of,
    with_defaults,
)

EXIT_TRY_AGAIN = 75
KILLED = (128 + 9, 128 + 15)  # as a container's client reports it; a process has a negative code
ERROR_MARK = "error: "
SUCCEEDED, FAILED, SKIPPED, STOPPED = "succeeded", "failed", "skipped", "stopped"
POLL_SECONDS = 0.2
AT_ANY_RATE = "ALL_UPSTREAM_TASKS_COMPLETED"

Say = Callable[[str], None]


@dataclass
class TaskReport:
    """What became of one task."""

    name: str
    path: str
    state: str
    seconds: float = 0.0
    attempts: int = 0
    code: int = 0
    error: str = ""
    outputs: Outputs = field(default_factory=Outputs)


class Stop:
    """A request to end, for one graph and all that are in it."""

    def __init__(self, parent: "Stop | None" = None) -> None:
        self._event, self._parent = threading.Event(), parent

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._parent is not None and self._parent.is_set())


def core_slots() -> int:
    """One task more than cores: tasks differ in length, and the scheduler of the system fills the gaps."""
    return len(os.sched_getaffinity(0)) + 1


class LocalPipeline:
    """One run of a pipeline."""

    def __init__(
        self,
        spec: PipelineSpec,
        launcher: Launcher,
        folder: Path,
        *,
        environment: Mapping[str, str],
        say: Say,
        ended: Callable[[], bool] = lambda: False,
        slots: threading.Semaphore | None = None,
    ) -> None:
        self.spec, self.launcher, self.folder, self.say = spec, launcher, folder, say
        self.environment, self.ended = environment, ended
        self.reports: list[TaskReport] = []
        self._slots = slots or threading.Semaphore(core_slots())
        self._lock = threading.Lock()
        self._stop = Stop()

    def run(self, arguments: Values) -> bool:
        """Run all tasks; whether all went well. ``reports`` has what became of each.

        ``ended`` is asked now and then; once it says so, all tasks are asked to end.
        """
        parameters = self.spec.arguments(arguments)
        with ThreadPoolExecutor(max_workers=1) as pool:
            whole = pool.submit(self._graph, self.spec.root["dag"], Scope(parameters, {}), "", self._stop)
            try:
                while not whole.done():
                    wait([whole], timeout=POLL_SECONDS)
                    if self.ended():
                        self._stop.set()
                return whole.result() == SUCCEEDED
            except BaseException:
                self._stop.set()  # tasks get the time to save what they have
                raise

    def _graph(self, dag: Values, scope: Scope, path: str, stop: Stop) -> str:
        """The tasks of one graph, each as soon as it can; after a failure nothing new begins."""
        tasks: Values = dag["tasks"]
        failing = Stop(stop)
        running: dict[Future[str], str] = {}
        with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
            while len(scope.states) < len(tasks):
                begun = set(scope.states) | set(running.values())
                for name in [name for name in tasks if name not in begun and self._ready(tasks[name], scope)]:
                    if self._blocked(tasks[name], scope, failing):
                        scope.states[name] = SKIPPED
                        continue
                    at_any_rate = _strategy(tasks[name]) == AT_ANY_RATE
                    job = pool.submit(
                        self._task, tasks[name], scope, f"{path}/{name}", Stop() if at_any_rate else failing
                    )
                    running[job] = name
                if not running:
                    continue
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    if job.exception() is not None:
                        failing.set()  # the pool waits for the others before the exception goes on
                    state = scope.states[running.pop(job)] = job.result()
                    if state in (FAILED, STOPPED):
                        failing.set()
        return _sum_up(scope.states)

    def _ready(self, task: Values, scope: Scope) -> bool:
        return all(name in scope.states for name in task.get("dependentTasks", ()))

    def _blocked(self, task: Values, scope: Scope, failing: Stop) -> bool:
        if _strategy(task) == AT_ANY_RATE:
            return False
        upstream = [scope.states[name] for name in task.get("dependentTasks", ())]
        return failing.is_set() or any(state != SUCCEEDED for state in upstream)

    def _task(self, task: Values, scope: Scope, path: str, stop: Stop) -> str:
        """One task: a graph, a loop over a graph, or a command."""
        component = self.spec.components[task["componentRef"]["name"]]
        parameters, artifacts = inputs_of(task, scope)
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition and not holds(condition, parameters):
            return SUCCEEDED
        if "parameterIterator" in task:
            return self._loop(task, component, Scope(parameters, artifacts), path, stop)
        if "dag" in component:
            return self._graph(component["dag"], Scope(parameters, artifacts), path, stop)
        report = TaskReport(task["taskInfo"]["name"], path.strip("/"), SKIPPED)
        try:
            _Command(self, component, task, path, stop).run(parameters, artifacts, report)
        finally:
            with self._lock:
                self.reports.append(report)
        scope.outputs[path.rpartition("/")[2]] = report.outputs
        return report.state

    def _loop(self, task: Values, component: Values, scope: Scope, path: str, stop: Stop) -> str:
        """All members, so many at a time; one that fails leaves the others alone."""
        item_input, items = items_of(task, scope.parameters)
        limit = int(task.get("iteratorPolicy", {}).get("parallelismLimit", 0)) or len(items) or 1
        with ThreadPoolExecutor(max_workers=limit) as pool:
            members = []
            for index, item in enumerate(items):
                inside = Scope({**scope.parameters, item_input: item}, scope.artifacts)
                members.append(
                    pool.submit(self._graph, component["dag"], inside, f"{path}/{index}", Stop(stop))
                )
            return _sum_up({str(index): member.result() for index, member in enumerate(members)})


class _Command:
    """A task that is a command: its files, its attempts, and what it gives back."""

    def __init__(self, run: LocalPipeline, component: Values, task: Values, path: str, stop: Stop) -> None:
        self.pipeline, self.component, self.task, self.stop = run, component, task, stop
        self.folder = run.folder / path.strip("/")

    def run(self, parameters: Values, artifacts: Values, report: TaskReport) -> None:
        """Run, again where that can help, and fill in the report."""
        with self.pipeline._slots:
            began = time.monotonic()
            policy = self.task.get("retryPolicy", {})
            pause = float(str(policy.get("backoffDuration", "0")).rstrip("s"))
            while True:
                code = report.code = self._attempt(parameters, artifacts, report)
                report.state = SUCCEEDED if code == 0 else STOPPED if self.stop.is_set() else FAILED
                killed = code < 0 or code in KILLED
                again = (killed or code == EXIT_TRY_AGAIN) and report.attempts <= int(
                    policy.get("maxRetryCount", 0)
                )
                if report.state != FAILED or not again:
                    break
                reason = "was killed" if killed else f"asks to be tried again ({report.error})"
                self.pipeline.say(f"{report.name}: {reason}; attempt {report.attempts + 1}")
                self._pause(0.0 if killed else pause)
                pause *= float(policy.get("backoffFactor", 1.0))
            report.seconds = time.monotonic() - began
        if report.state == SUCCEEDED:
            report.outputs = self._outputs()
        elif report.state == FAILED and not report.error:
            report.error = f"{report.name}: exit code {code}; see {self.folder / 'log.txt'}"

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stop.is_set():
            time.sleep(0.1)

    def _attempt(self, parameters: Values, artifacts: Values, report: TaskReport) -> int:
        report.attempts += 1
        report.error = ""

        def say(line: str) -> None:
            if line.startswith(ERROR_MARK):  # what became of the run is said at its end, and once
                report.error = line.removeprefix(ERROR_MARK)
            else:
                self.pipeline.say(line)

        container = self.pipeline.spec.container(self.component)
        executor_input = json.dumps(self._executor_input(parameters, artifacts))
        # The text of the component is full of braces: only whole arguments are replaced.
        line = [
            executor_input if part == "{{$}}" else part for part in container["command"] + container["args"]
        ]
        variables = {entry["name"]: entry["value"] for entry in container.get("env", ())}
        launch = self.pipeline.launcher.command(
            fill(container["image"], parameters), line, {**variables, **self.pipeline.environment}
        )
        return follow(launch, self.folder / "log.txt", say, self.stop.is_set)

    def _executor_input(self, parameters: Values, artifacts: Values) -> Values:
        """What KFP's executor in the task is told."""
        definitions = self.component.get("inputDefinitions", {})
        outputs = self.component.get("outputDefinitions", {})
        self.pipeline.launcher.make_folder(self.folder)
        known = with_defaults(definitions.get("parameters", {}), parameters)
        return {
            "inputs": {
                "parameterValues": known,
                "artifacts": {name: {"artifacts": [value]} for name, value in artifacts.items()},
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": str(self.folder / name)} for name in outputs.get("parameters", {})
                },
                "artifacts": {
                    name: {
                        "artifacts": [
                            {
                                "name": name,
                                "type": definition["artifactType"],
                                "uri": str(self.folder / name),
                                "metadata": {},
                            }
                        ]
                    }
                    for name, definition in outputs.get("artifacts", {}).items()
                },
                "outputFile": str(self.folder / "executor_output.json"),
            },
        }

    def _outputs(self) -> Outputs:
        path = self.folder / "executor_output.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        types = self.component.get("outputDefinitions", {}).get("artifacts", {})
        artifacts = {
            name: {"type": types[name]["artifactType"], **values["artifacts"][0]}
            for name, values in found.get("artifacts", {}).items()
        }
        return Outputs(found.get("parameterValues", {}), artifacts)


def _strategy(task: Values) -> str | None:
    strategy: str | None = task.get("triggerPolicy", {}).get("strategy")
    return strategy


def _sum_up(states: dict[str, str]) -> str:
    """A graph is as well as the worst of its tasks."""
    for state in (FAILED, STOPPED, SKIPPED):
        if state in states.values():
            return state
    return SUCCEEDED
