"""Events of a spool become what MLflow shows. The only module of tracking that imports MLflow.

Everything here may be done twice: runs are found again by their tags, numbers of a name and step that the
run already has are left out, and MLflow itself drops a number sent twice with one time stamp.
"""

import getpass
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from unio4_lib.tracking import spool
from unio4_lib.tracking.address import sqlite_file
from unio4_lib.tracking.spool import Event, Target

RUN_KEY, STAGE, FINGERPRINT = "unio4.run_key", "unio4.stage", "unio4.fingerprint"
KFP_POD = "KFP_POD_NAME"  # a variable that a pod of KFP has
MADE = "unio4.made"  # nanoseconds when the run was there in MLflow, which may be long after it began
PARENT, DESCRIPTION = "mlflow.parentRunId", "mlflow.note.content"
# The kind keeps MLflow's UI from asking, or guessing, whether these are traces of a language model.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# A list of runs as MLflow's own button "Share" keeps one: no stages, and scores side by side.
VIEW_KEY = "scores"
VIEW = f"mlflow.sharedViewState.{VIEW_KEY}"
COLUMNS = [f"params.`{name}`" for name in ("dataset", "method", "seed")]
COLUMNS += [f"metrics.`{name}`" for name in ("scores/offline", "scores/online", "score", "score_normalized")]
LIST_OF_SCORES = json.dumps({"searchFilter": f"tags.`{STAGE}` = 'run'", "selectedColumns": COLUMNS})
ABOUT = (
    "Offline-to-online learning by unio4: [the runs with their scores]({link}). "
    "Each run has its stages as nested runs."
)
ABANDONED_SECONDS = 3600.0  # making a database takes some ten
ARTIFACTS = "mlartifacts"  # beside a local database
# Lets a server send clients on to its S3, by the name that S3 has where the server is.
DETOURS = ("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD")
BATCH_METRICS, BATCH_OTHERS = 1000, 100  # MLflow's limits for one request
EVENTS_AT_ONCE = 2000
MERGED = ("metrics", "params", "tags")
LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 6000, 8000, 36
# What MLflow answers when the fault is in what was sent; anything else may pass with time.
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


def is_refusal(error: Exception) -> bool:
    """Whether asking again is useless."""
    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    return isinstance(error, FileNotFoundError | ValueError)  # a spool from which files were removed


def make_database(path: Path) -> None:
    """A new database of MLflow, which is there whole or not at all.

    MLflow builds its tables in some forty steps, in place. Two runs that begin together, or one that is
    killed meanwhile, would leave a database that nobody can ever open again.
    """
    for left in path.parent.glob(f".{path.name}-*"):  # by one that was killed meanwhile
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    if path.exists():
        return
    # Here: who talks to a server has no databases (mlflow-skinny).
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / path.name
        SqlAlchemyStore(f"sqlite:///{made}", str(path.parent / ARTIFACTS)).engine.dispose()
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # someone was faster
        except OSError:  # a file system without hard links
            if not path.exists():
                made.rename(path)


@dataclass
class OpenRun:
    """An MLflow run and the numbers that it has."""

    run_id: str
    steps: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def new(self, event: Event) -> list[Metric]:
        """The metrics of an event that the run does not have yet."""
        step, when = event["step"], event["time"]
        fresh = {key: value for key, value in event["values"].items() if step not in self.steps[key]}
        return [Metric(key, value, when, step) for key, value in fresh.items()]

    def remember(self, metrics: list[Metric]) -> None:
        for metric in metrics:
            self.steps[metric.key].add(metric.step)


class Delivery:
    """Carries outboxes of one spool to one server."""

    def __init__(self, uri: str, target: Target, folder: Path) -> None:
        self.uri, self.target, self.folder = uri, target, folder
        if uri.startswith("sqlite:"):
            make_database(sqlite_file(uri))
        if "KUBERNETES_SERVICE_HOST" not in os.environ:  # set in every pod, which can go there
            for switch in DETOURS:
                os.environ.setdefault(switch, "false")
        self.client = MlflowClient(uri, registry_uri=uri)
        self.refused = 0
        self._experiment_id: str | None = None
        self._parent_id: str | None = None
        self._outer_id: str | None = None
        self._open: dict[str, OpenRun] = {}

    def deliver(self) -> None:
        """Send all that is new; raises what the server or the way there answers."""
        for outbox in spool.outboxes(self.folder):
            offset = spool.sent_offset(outbox)
            while events := list(islice(spool.read_events(outbox, offset), EVENTS_AT_ONCE)):
                for group in _groups(events):
                    self._send_group(outbox, [event for event, _ in group])
                    offset = group[-1][1]
                    spool.record_sent(outbox, offset)

    def _send_group(self, outbox: Path, events: list[Event]) -> None:
        """A group in one request; where that is refused, one by one, and what is at fault is put aside."""
        try:
            self._send(outbox, events)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(events) > 1:
                for event in events:
                    self._send_group(outbox, [event])
            else:
                self._put_aside(outbox, events[0], error)

    def _put_aside(self, outbox: Path, event: Event, error: Exception) -> None:
        self.refused += 1
        with (self.folder / spool.REFUSED).open("a") as file:
            file.write(f"{outbox.stem}: {' '.join(str(error).split())}: {json.dumps(event)[:2000]}\n")

    def _send(self, outbox: Path, events: list[Event]) -> None:
        kind = events[0]["kind"]
        if kind == "begin":
            self._open[outbox.stem] = self._begin(events[0])
            return
        run = self._open.get(outbox.stem)
        if run is None:  # delivery of this outbox goes on in a new process
            run = self._open[outbox.stem] = self._reopen(outbox)
        if kind in MERGED:
            self._send_values(run, events)
        elif kind == "artifact":
            self.client.log_artifact(run.run_id, str(self.folder / events[0]["path"]), events[0]["folder"])
        elif kind == "dataset":
            self._send_dataset(run.run_id, events[0])
        elif kind == "model":
            from unio4_lib.tracking.registry import log_model_once

            policy = self.folder / events[0]["path"]
            log_model_once(self.client, run.run_id, policy, events[0]["name"], self.target)
        elif kind == "end":
            if not self._is_outer(run.run_id):
                self.client.set_terminated(run.run_id, events[0]["status"], events[0]["time"])
        else:
            raise ValueError(f"an event of unknown kind {kind!r}")

    # Runs

    def _begin(self, event: Event) -> OpenRun:
        """The run of an outbox, running again if it was there already."""
        run, found = self._find_or_create(event)
        if found and not self._is_outer(run.info.run_id):
            self.client.update_run(run.info.run_id, status="RUNNING")
        return self._with_steps(run) if found else OpenRun(run.info.run_id)

    def _reopen(self, outbox: Path) -> OpenRun:
        event = spool.first_event(outbox)
        if event is None or event["kind"] != "begin":
            raise ValueError(f"{outbox} does not begin with its run")
        return self._with_steps(self._find_or_create(event)[0])

    def _is_outer(self, run_id: str) -> bool:
        """Whether the run is someone else's, who says when it ends."""
        return run_id == self.outer_id()

    def outer_id(self) -> str | None:
        """Someone else's run that all stages share; KFP's plug-in gives each task one of its own below it."""
        given = self.target.parent_run_id
        if given is not None and KFP_POD in os.environ and self._outer_id is None:
            self._outer_id = self.client.get_run(given).data.tags.get(PARENT)
        return self._outer_id or given

    def _with_steps(self, run: Run) -> OpenRun:
        opened = OpenRun(run.info.run_id)
        for key in run.data.metrics:
            opened.remember(self.client.get_metric_history(run.info.run_id, key))
        return opened

    def _find_or_create(self, event: Event) -> tuple[Run, bool]:
        if event["stage"] is None:
            run = self.client.get_run(self.parent_id(event["time"]))
            return run, True
        tags = {RUN_KEY: self.target.run_key, STAGE: event["stage"], FINGERPRINT: event["fingerprint"]}
        parent, name = self.parent_id(event["time"]), f"{self.target.run_name}/{event['stage']}"
        return self._run_with(tags, name, {PARENT: parent}, event["time"])

    def parent_id(self, began: int) -> str:
        """The run above the stages: someone else's if one was given, else ours, one for each run key."""
        if self._parent_id is None:
            self._parent_id = self.outer_id()
            if self._parent_id is None:
                tags = {RUN_KEY: self.target.run_key, STAGE: "run"}
                run, _ = self._run_with(tags, self.target.run_name, {}, began)
                self._parent_id = run.info.run_id
        return self._parent_id

    def _run_with(
        self, tags: dict[str, str], name: str, more: dict[str, str], began: int
    ) -> tuple[Run, bool]:
        """The one run with these tags, and whether it was there; of two made at once the older counts."""
        if runs := self._runs_with(tags):
            return runs[0], True
        made = self.client.create_run(self.experiment_id(), began, {**tags, **more, **_origin()}, name)
        # Told afterwards: who was alone when it looked is then older than all who were made later.
        self.client.set_tag(made.info.run_id, MADE, str(time.time_ns()))
        first = self._runs_with(tags)[0]
        if first.info.run_id != made.info.run_id:
            self.client.delete_run(made.info.run_id)
            return first, True
        return made, False

    def _runs_with(self, tags: dict[str, str]) -> list[Run]:
        conditions = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        runs = self.client.search_runs([self.experiment_id()], conditions)
        return sorted(runs, key=lambda run: (float(run.data.tags.get(MADE, "inf")), run.info.run_id))

    def experiment_id(self) -> str:
        """The experiment of that name, made if need be; under someone else's run, the experiment of that."""
        if self._experiment_id is None:
            if (outer_id := self.outer_id()) is not None:
                outer = self.client.get_run(outer_id)
                self._experiment_id = outer.info.experiment_id
            else:
                self._experiment_id = self._experiment_of(self.target.experiment)
        assert self._experiment_id is not None
        return self._experiment_id

    def _experiment_of(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name) or self._new_experiment(name)
        if VIEW not in found.tags:  # also where somebody else made the experiment
            self.client.set_experiment_tag(found.experiment_id, VIEW, LIST_OF_SCORES)
        return str(found.experiment_id)

    def _new_experiment(self, name: str) -> Experiment:
        place = None  # a server knows where its artifacts belong
        if self.uri.startswith("sqlite"):
            place = (sqlite_file(self.uri).parent / ARTIFACTS).as_uri()
        try:
            made = self.client.create_experiment(name, place, KIND)
            link = f"#/experiments/{made}/runs?viewStateShareKey={VIEW_KEY}"
            self.client.set_experiment_tag(made, DESCRIPTION, ABOUT.format(link=link))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self.client.get_experiment_by_name(name)
        assert found is not None
        return found

    # What runs have

    def _send_values(self, run: OpenRun, events: list[Event]) -> None:
        metrics: list[Metric] = []
        others: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
        for event in events:
            if event["kind"] == "metrics":
                fresh = run.new(event)
                run.remember(fresh)  # the next event of this batch may say it again
                metrics += fresh
            else:
                others[event["kind"]].update(event["values"])
        if self._is_outer(run.run_id):
            others["tags"].pop(DESCRIPTION, None)  # someone else's run keeps its own
        params = [Param(name, value[:LONGEST_PARAM]) for name, value in others["params"].items()]
        tags = [RunTag(name, value[:LONGEST_TAG]) for name, value in others["tags"].items()]
        try:
            while metrics or params or tags:
                head = metrics[:BATCH_METRICS], params[:BATCH_OTHERS], tags[:BATCH_OTHERS]
                self.client.log_batch(run.run_id, *head)
                metrics, params = metrics[BATCH_METRICS:], params[BATCH_OTHERS:]
                tags = tags[BATCH_OTHERS:]
        except Exception:
            for metric in metrics:  # these did not arrive
                run.steps[metric.key].discard(metric.step)
            raise

    def _send_dataset(self, run_id: str, event: Event) -> None:
        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:LONGEST_DIGEST],
            source_type="unio4",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps(event["profile"]),
        )
        used_for = InputTag("mlflow.data.context", event["context"])
        self.client.log_inputs(run_id, [DatasetInput(dataset, [used_for])])


def _origin() -> dict[str, str]:
    """What MLflow's lists show as user and source of a run."""
    tags = {"mlflow.source.name": "unio4", "mlflow.source.type": "LOCAL"}
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _groups(events: list[tuple[Event, int]]) -> Iterator[list[tuple[Event, int]]]:
    """Values that follow each other go together, up to a request's worth; anything else goes alone."""
    group: list[tuple[Event, int]] = []
    count = 0
    for event, offset in events:
        if event["kind"] not in MERGED:
            if group:
                yield group
            yield [(event, offset)]
            group, count = [], 0
            continue
        group.append((event, offset))
        count += len(event["values"])
        if count >= BATCH_METRICS:
            yield group
            group, count = [], 0
    if group:
        yield group
