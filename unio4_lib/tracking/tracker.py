"""What training code sees of tracking: names and numbers in, nothing to wait for, nothing that fails it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from unio4_lib.errors import InputError, Preempted
from unio4_lib.files import read_plain
from unio4_lib.progress import Stopped
from unio4_lib.tracking import spool
from unio4_lib.tracking.address import NO_TRACKING, check_uri, without_password
from unio4_lib.tracking.spool import Outbox, Target

NICENESS = 19  # of the sender, where there is nothing better
PATIENCE_SECONDS = 10.0  # of waiting at the end, before the user is told what for
LAST_WORD_SECONDS = 60.0  # of waiting for one with our priority; the rest is kept on disk
# A server that is away is asked again by us, and must not hold up what else is to be sent.
SENDER_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "OMP_NUM_THREADS": "1",
}
# Settings of MLflow's fluent interface that would rename or replace the runs that we ask for by id.
NOT_FOR_SENDER = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")

Say = Callable[[str], None]


class RunFailed(Exception):  # noqa: N818 - reads as a statement of what happened
    """Someone has found out why a run failed: the text is the whole reason."""


class StageTracker:
    """One MLflow run: of a stage, or of the whole pipeline run."""

    def __init__(self, outbox: Outbox | None) -> None:
        self._outbox = outbox  # None: tracking is off

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; nested mappings become names with dots."""
        if self._outbox is not None:
            self._outbox.append("params", values={name: str(v) for name, v in flatten(params).items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one step. A number is known by its name and step: saying it again changes nothing."""
        if self._outbox is not None and metrics:
            values = {name: float(value) for name, value in metrics.items()}
            self._outbox.append("metrics", step=int(step), values=values)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        if self._outbox is not None:
            self._outbox.append("tags", values={name: str(value) for name, value in tags.items()})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, under ``folder`` of the run's artifacts."""
        if self._outbox is not None:
            self._outbox.append_file("artifact", path, folder=folder)

    def log_dataset(
        self, name: str, *, source: str, digest: str, profile: Mapping[str, Any], context: str = "training"
    ) -> None:
        """The data that the run has learned from; ``profile`` says how much of it and of what kind."""
        if self._outbox is not None:
            values = {"name": name, "source": source, "digest": digest, "profile": dict(profile)}
            self._outbox.append("dataset", context=context, **values)

    def log_model(self, policy: Path, name: str = "policy") -> None:
        """The folder of a policy as an MLflow model that acts without unio4; registered if that was asked."""
        if self._outbox is not None:
            self._outbox.append_file("model", policy, name=name)


class Tracker(Protocol):
    """Where the numbers of one pipeline run go. A context manager: leaving it delivers what it can."""

    def stage(self, name: str, fingerprint: str) -> AbstractContextManager[StageTracker]:
        """The run of one stage; the same one again after a retry."""
        ...

    def run(self) -> AbstractContextManager[StageTracker]:
        """The run above the stages, for what belongs to none; leaving it ends the whole run."""
        ...

    @property
    def active(self) -> bool:
        """Whether anybody follows: if not, nothing needs to be found out for it."""
        ...

    def __enter__(self) -> "Tracker": ...

    def __exit__(self, *_: object) -> None: ...


class NullTracker:
    """Tracking is off."""

    active = False

    @contextmanager
    def stage(self, name: str, fingerprint: str) -> Iterator[StageTracker]:
        yield StageTracker(None)

    @contextmanager
    def run(self) -> Iterator[StageTracker]:
        yield StageTracker(None)

    def __enter__(self) -> "NullTracker":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""


class SpoolTracker:
    """Writes to a spool, and keeps a process beside it that carries the spool to MLflow."""

    active = True

    def __init__(self, uri: str, target: Target, folder: Path, leftovers: Path | None, say: Say) -> None:
        self.uri, self.target, self.folder = uri, target, folder
        self.leftovers, self.say = leftovers, say
        self._locks = ExitStack()
        self._sender: subprocess.Popen[str] | None = None
        self._warned = False

    def __enter__(self) -> "SpoolTracker":
        if not self._locks.enter_context(spool.locked(self.folder, spool.WRITER_LOCK)):
            self._locks.close()
            raise InputError(f"{self.folder}: another process tracks there; choose another work folder")
        self.target.save(self.folder)
        (self.folder / spool.STATE).unlink(missing_ok=True)
        self._sender = start_sender(self.uri, self.folder, self.leftovers)
        step_back(self._sender.pid)
        return self

    def stage(self, name: str, fingerprint: str) -> AbstractContextManager[StageTracker]:
        return self._outbox(f"{name}-{fingerprint[:16]}", stage=name, fingerprint=fingerprint)

    def run(self) -> AbstractContextManager[StageTracker]:
        return self._outbox(spool.RUN_OUTBOX, stage=None, fingerprint=None)

    @contextmanager
    def _outbox(self, name: str, **identity: str | None) -> Iterator[StageTracker]:
        outbox = Outbox(self.folder, name)
        outbox.append("begin", **identity)
        try:
            yield StageTracker(outbox)
        except BaseException as error:
            reason = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
            outbox.append("tags", values={"unio4.error": reason[:4000]})
            outbox.append("end", status=status_after(error))
            raise
        else:
            outbox.append("end", status="FINISHED")
        finally:
            outbox.close()
            self._mention_trouble()

    def _mention_trouble(self) -> None:
        """Once, and early: whoever watches may want to start the server."""
        trouble = read_state(self.folder).get("trouble")
        if trouble and not self._warned:
            self._warned = True
            self.say(f"tracking: {trouble}; training goes on, numbers are kept in {self.folder}")

    def __exit__(self, *_: object) -> None:
        self._locks.close()  # first: the sender then knows that nothing more will come
        self._end_input()
        if not self._ends_within(PATIENCE_SECONDS):
            self.say(
                f"tracking: the last numbers are on their way to {self.target.uri}; waiting up to "
                f"{LAST_WORD_SECONDS:.0f} s"
            )
            # It has what others leave of the processor, and they may leave nothing.
            self._end_sender()
            self._sender = start_sender(self.uri, self.folder, None)
            self._end_input()
            if not self._ends_within(LAST_WORD_SECONDS):
                self._end_sender()
        shutil.rmtree(self.folder / spool.SCRATCH, ignore_errors=True)
        self._say_what_is_left()

    def _end_input(self) -> None:
        """Tell the sender that nothing more will come."""
        assert self._sender is not None
        assert self._sender.stdin is not None
        self._sender.stdin.close()

    def _end_sender(self) -> None:
        assert self._sender is not None
        self._sender.kill()
        self._sender.wait()

    def _ends_within(self, seconds: float) -> bool:
        assert self._sender is not None
        try:
            self._sender.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _say_what_is_left(self) -> None:
        state = read_state(self.folder)
        if waiting := spool.count_waiting(self.folder):
            reason = state.get("trouble") or "there was not time enough"
            self.say(
                f"tracking: {waiting:,} lines are not at {self.target.uri} yet ({reason}); they are kept in "
                f"{self.folder} and sent by the next run or by: unio4 tracking flush {self.folder}"
            )
        if refused := state.get("refused"):
            self.say(f"tracking: MLflow refused {refused}; {self.folder / spool.REFUSED} says what and why")


class AttachedTracker(SpoolTracker):
    """Writes to the spool of a run whose own process delivers it: for stages that are processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned = True  # whoever delivers says how it goes

    def __enter__(self) -> "AttachedTracker":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be done here."""


def status_after(error: BaseException) -> str:
    """A stage that was told to stop was killed; one that could not go on has failed."""
    stopped = isinstance(error, Stopped | Preempted) or not isinstance(error, Exception)
    return "KILLED" if stopped else "FAILED"


def start_sender(uri: str, folder: Path, leftovers: Path | None) -> subprocess.Popen[str]:
    """The process that delivers; it ends soon after its standard input does, however this process ends."""
    scratch = (folder / spool.SCRATCH).absolute()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    environment = {**SENDER_SETTINGS, **os.environ, "TMPDIR": str(scratch)}
    for name in NOT_FOR_SENDER:
        environment.pop(name, None)
    command = [sys.executable, "-m", "unio4_lib.tracking.sender", str(folder)]
    with (folder / "sender.log").open("ab") as log:
        process = subprocess.Popen(
            command + ([str(leftovers)] if leftovers is not None else []),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            text=True,
            process_group=0,  # Ctrl-C is for the training; the sender still delivers how it ended
        )
    assert process.stdin is not None
    process.stdin.write(uri + "\n")  # not an argument: other users of the machine can read those
    process.stdin.flush()
    return process


def step_back(pid: int) -> None:
    """Let a process take only the processor time that nobody else wants.

    It stays in our session, because Linux shares time out between sessions first, whatever they do.
    """
    with suppress(PermissionError):  # some sandboxes leave priorities alone
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        else:  # not Linux
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def read_state(folder: Path) -> dict[str, Any]:
    """What the sender last said of itself."""
    try:
        state = json.loads(read_plain(folder / spool.STATE))
    except (OSError, ValueError, RecursionError):  # none yet, or none that it wrote
        return {}
    return state if isinstance(state, dict) else {}


def make_tracker(
    uri: str | None,
    *,
    experiment: str,
    run_name: str,
    run_key: str,
    spool: Path,
    leftovers: Path | None = None,
    register: str | None = None,
    alias: str | None = None,
    say: Say = lambda _line: None,
    environ: Mapping[str, str] = os.environ,
) -> Tracker:
    """The tracker for an address; a silent one for None or "none".

    ``run_key`` identifies the pipeline run: all who give the same one share its MLflow run. ``leftovers``
    is a folder in which spools of earlier runs may still wait. Where Kubeflow Pipelines (or anyone) has set
    MLFLOW_RUN_ID, everything nests under that run, in its experiment.
    """
    if alias is not None and register is None:
        raise InputError(f"alias {alias!r} is of no registered model; expected a name to register, too")
    if uri is None or uri == NO_TRACKING:
        if register is not None:
            raise InputError(f"model {register!r} cannot be registered without tracking; expected a URI")
        return NullTracker()
    uri = check_uri(uri)
    for name, value in (("experiment", experiment), ("run_name", run_name), ("run_key", run_key)):
        if not re.fullmatch(r"[^'\"`\n]{1,250}", value):
            raise InputError(f"{name} is {value!r}; expected 1 to 250 characters without quotes")
    outer = environ.get("MLFLOW_RUN_ID") or None
    target = Target(without_password(uri), experiment, run_name, run_key, outer, register, alias)
    return SpoolTracker(uri, target, spool, leftovers, say)


@dataclass(frozen=True)
class Tracking:
    """What the user has chosen about tracking."""

    uri: str | None
    experiment: str = "unio4"
    run_name: str | None = None
    register: str | None = None
    alias: str | None = None

    def tracker(self, run_key: str, spool: Path, leftovers: Path, say: Say) -> Tracker:
        """The tracker of one run."""
        return make_tracker(
            self.uri,
            experiment=self.experiment,
            run_name=self.run_name or run_key,
            run_key=run_key,
            spool=spool,
            leftovers=leftovers,
            register=self.register,
            alias=self.alias,
            say=say,
        )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of names with dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
