"""What a KFP component does: call a stage, and end its process with one clear line if it fails.

As a module of the command line it prints and exits, here on behalf of KFP's executor. Exit codes are those of
``unio4 stage``: 1 failed, 2 bad input, 75 try again.
"""

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreUnavailable
from unio4_lib.artifacts.store import open_store
from unio4_lib.cli.console import on_termination, progress_console
from unio4_lib.cli.errors import DEBUG_VARIABLE, EXIT_TRY_AGAIN, explain
from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config, method_of, read_config
from unio4_lib.methods.registry import DEFAULT
from unio4_lib.settings.model import RunConfig, config_digest
from unio4_lib.stages import failures
from unio4_lib.stages import sweep as sweeps
from unio4_lib.stages.context import RUN_KEY_VARIABLE, SPOOL_VARIABLE
from unio4_lib.stages.switch import checked_choice, goes_online, verdict
from unio4_lib.tracking.address import NO_TRACKING, check_public, whole
from unio4_lib.tracking.tracker import RunFailed, Tracker

if TYPE_CHECKING:
    from unio4_lib.stages.outcome import StageOutcome

GO_ONLINE, STAY_OFFLINE = "finetune", "report"  # what the condition in the pipeline compares with
PAGE = "report.html"
WELL = ("COMPLETE", "SUCCEEDED")  # as a cluster says it, and as kfp.local does
POD_VARIABLE = "KFP_POD_NAME"  # which KFP sets on a cluster
TERMINATION_LOG = Path("/dev/termination-log")  # what Kubernetes and Argo show of a pod that failed
# On a cluster a stage waits by itself for a store that is away: with Argo's policy there (OnError in KFP's
# manifests) a process that ends with "try again" is not tried again.
PAUSES = (10.0, 30.0, 60.0, 120.0, 300.0, 300.0)
# Of the secret, under names of our own: KFP's plug-in for MLflow sets these itself, and what has two sources
# has no value where the secret is absent.
OWN = "UNIO4_"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

Say = Callable[[str], None]


class KfpArtifact(Protocol):
    """What KFP hands to a component for each artifact."""

    path: str
    metadata: dict[str, Any]


class KfpMetrics(Protocol):
    """KFP's artifact of scalars."""

    def log_metric(self, metric: str, value: float) -> None: ...


@dataclass(frozen=True)
class Run:
    """What all stages of a run share; travels between components as JSON."""

    config: RunConfig
    artifact_root: str
    tracking: str
    experiment: str
    run_name: str
    sweep: str
    reuse: bool

    @property
    def member(self) -> sweeps.Member | None:
        """Its place in a sweep."""
        config = self.config
        return sweeps.Member(self.sweep, config.dataset, config.seed, config.method) if self.sweep else None

    def to_json(self) -> str:
        """Text that ``from_json`` reads."""
        return json.dumps({**asdict(self), "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """A run from its text."""
        values = json.loads(text)
        config = read_config(values.pop("config"))
        return cls(config=config, **values)


def resolve_run(
    source: str,
    method: str,
    preset: str,
    seed: int,
    overrides: Sequence[str],
    *,
    artifact_root: str,
    tracking: str,
    experiment: str,
    run_name: str,
    sweep: str,
    reuse: bool,
) -> str:
    """The settings of a run as text, from the parameters of the pipeline."""
    member = sweeps.Member(sweep, source, seed, method) if sweep else None
    with _one_line("prepare-dataset", artifact_root, member):
        if member is not None:
            sweeps.begin(open_store(artifact_root), member)
        config = load_config(preset, overrides=overrides, dataset=source, seed=seed, method=method)
        check_public(tracking)
        name = member.name if member is not None else run_name
        return Run(config, artifact_root, tracking, experiment, name, sweep, reuse).to_json()


def run_component(
    stage: str,
    run: str,
    inputs: Mapping[str, KfpArtifact],
    output: KfpArtifact,
    metrics: KfpMetrics,
    page: KfpArtifact | None = None,
) -> None:
    """Run a stage from references to a reference, and show KFP what it came to."""
    settings = Run.from_json(run)
    with _one_line(stage, settings.artifact_root, settings.member):
        refs = {kind: ArtifactRef.load(Path(artifact.path)) for kind, artifact in inputs.items()}
        outcome = _patiently(stage, lambda: _outcome(stage, settings, refs, page))
        outcome.ref.save(Path(output.path))
        facts = {name: value for name, value in asdict(outcome).items() if name not in ("ref", "metrics")}
        output.metadata.update({**outcome.ref.model_dump(), **facts})
        for name, value in outcome.metrics.items():
            metrics.log_metric(name, value)


def _outcome(
    stage: str, settings: Run, refs: Mapping[str, ArtifactRef], page: KfpArtifact | None
) -> "StageOutcome":
    from unio4_lib.progress import Reporter
    from unio4_lib.stages.context import StageContext
    from unio4_lib.stages.repair import Stages

    with (
        Reporter(progress_console()) as reporter,
        _tracker(settings, stage, reporter.say) as tracker,
        on_termination() as preemption,
        StageContext(
            settings.artifact_root,
            reporter=reporter,
            tracker=tracker,
            reuse=settings.reuse,
            preemption=preemption,
        ) as context,
    ):
        method = method_of(settings.config)
        stages = Stages(method.steps, settings.config, context)
        outcome = stages.run(method.step(stage), refs)
        if page is not None:
            shown = stages.hold(outcome.ref, refs) / PAGE
            if shown.exists():
                shutil.copyfile(shown, page.path)
            if settings.member is not None:
                config = settings.config.model_dump(mode="json")
                sweeps.record_report(context.store, settings.member, outcome.ref, config)
        return outcome


def _patiently(stage: str, work: "Callable[[], StageOutcome]") -> "StageOutcome":
    """The result of a stage, which goes on from its checkpoint where the store was away."""
    for pause in PAUSES if POD_VARIABLE in os.environ else ():
        try:
            return work()
        except StoreUnavailable as error:
            _say(f"{stage}: {error}; once more in {pause:.0f} s")
            time.sleep(pause)
    return work()


def decide(run: str, finetune: str, offline: KfpArtifact) -> str:
    """Whether the improved policy goes online."""
    settings = Run.from_json(run)
    with _one_line("decide-finetuning", settings.artifact_root, settings.member):
        checked_choice(finetune)
        ref = ArtifactRef.load(Path(offline.path))
        accepted = open_store(ref.root).manifest(ref).metrics.get("accepted")
        print(verdict(finetune, accepted), file=sys.stderr)
        return GO_ONLINE if goes_online(finetune, accepted) else STAY_OFFLINE


def write_leaderboard(
    members: Sequence[Mapping[str, Any]],
    sweep: str,
    artifact_root: str,
    tracking: str,
    experiment: str,
    page: KfpArtifact,
    table: KfpArtifact,
    metrics: KfpMetrics,
) -> None:
    """Compare the members of a sweep; those that failed are named."""
    with _one_line("leaderboard", artifact_root, None):
        from unio4_lib.report import leaderboard
        from unio4_lib.report.comparison import write_comparison
        from unio4_lib.runs.sweep_results import entry_of
        from unio4_lib.stages.context import StageContext

        with StageContext(artifact_root) as context:
            known = [_member(sweep, member) for member in members]
            entries = [entry_of(member, context) for member in known]
        for member, entry in zip(known, entries, strict=True):
            if entry.failure and tracking not in ("", NO_TRACKING):
                name, key = _identity("", member, _run_key(member.name))
                _close(tracking, experiment, name, key, entry.failure)
        text = leaderboard.markdown(entries)
        Path(table.path).write_text(text)
        for name, value in leaderboard.metrics(entries).items():
            metrics.log_metric(name, value)
        records = [entry.record for entry in entries if entry.record is not None]
        if len(records) > 1:
            write_comparison(records, Path(page.path))
        print(text, file=sys.stderr)
        if not records:
            raise InputError(f"no member of sweep {sweep} has a result; the first: {entries[0].failure}")


def _member(sweep: str, told: Mapping[str, Any]) -> sweeps.Member:
    return sweeps.Member(sweep, told["dataset"], int(told["seed"]), told.get("method", DEFAULT))


def close_tracking(
    uri: str,
    experiment: str,
    run_name: str,
    member: tuple[str, str, int, str] | None,
    artifact_root: str,
    state: str,
) -> None:
    """Let MLflow's run say what became of the pipeline; where one process tracks it all, that one does."""
    if SPOOL_VARIABLE in os.environ:
        return
    with _one_line("close-run", artifact_root, None):
        store, key = open_store(artifact_root), _run_key(run_name)
        failure = ""
        if state not in WELL:
            failure = failures.reason(store, key) or f"the pipeline did not end well; KFP says {state}"
            _say(failure)
        if uri not in ("", NO_TRACKING):
            _close(uri, experiment, *_identity(run_name, member and sweeps.Member(*member), key), failure)
        failures.forget(store, key)


def _close(uri: str, experiment: str, run_name: str, key: str, failure: str) -> None:
    """End the run above the stages in MLflow."""
    with (
        suppress(RunFailed),
        _own_tracker(uri, experiment, run_name, key, "close-run", _say) as tracker,
        tracker.run(),
    ):
        if failure:
            raise RunFailed(failure)


def _tracker(settings: Run, stage: str, say: Say) -> Tracker:
    """Where the numbers of a stage go: beside those of the others, or straight to the server."""
    from unio4_lib.tracking.tracker import AttachedTracker, NullTracker

    spool = os.environ.get(SPOOL_VARIABLE)
    if NO_TRACKING in (spool, settings.tracking) or not settings.tracking:
        return NullTracker()
    if spool is not None:
        return AttachedTracker(Path(spool))
    otherwise = settings.run_name or config_digest(settings.config)[:16]
    name, key = _identity(settings.run_name, settings.member, _run_key(otherwise))
    return _own_tracker(settings.tracking, settings.experiment, name, key, stage, say)


def _identity(run_name: str, member: sweeps.Member | None, key: str) -> tuple[str, str]:
    """Name and key of a run in MLflow; all members of a sweep may be one run of KFP."""
    return (run_name, key) if member is None else (member.name, f"{key} {member.digest}")


def _own_tracker(uri: str, experiment: str, run_name: str, key: str, stage: str, say: Say) -> Tracker:
    from unio4_lib.stages.context import TRACKING, default_cache
    from unio4_lib.tracking.tracker import Tracking

    use_own_credentials(os.environ)
    place = default_cache() / TRACKING
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{key}-{stage}")
    return Tracking(whole(uri), experiment, run_name or None).tracker(key, place / name, place, say)


def use_own_credentials(environ: MutableMapping[str, str]) -> None:
    """Credentials of the secret, where there is one, in place of whatever KFP's plug-in has set."""
    own = {name: environ[OWN + name] for name in CREDENTIALS if environ.get(OWN + name)}
    if own:
        for name in (*CREDENTIALS, "MLFLOW_TRACKING_AUTH"):
            environ.pop(name, None)
        environ.update(own)


def _run_key(otherwise: str) -> str:
    """What identifies the pipeline run: its id where a cluster or ``unio4 run`` gives one."""
    return os.environ.get(RUN_KEY_VARIABLE) or otherwise


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def _one_line(stage: str, artifact_root: str, member: sweeps.Member | None) -> Iterator[None]:
    """Whatever happens inside, the process ends with one line; a sweep learns of a failure for good."""
    try:
        yield
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
            traceback.print_exc()
        text, code = explain(_plain(error))
        line = f"{stage}: {text}"
        _leave_behind(artifact_root, member, line, final=code != EXIT_TRY_AGAIN)
        print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(code)


def _plain(error: Exception) -> Exception:
    """A missing PyTorch is not a fault of the image but of what is asked of it."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return InputError(
            "this image has no PyTorch, which collecting a dataset needs; "
            "expected prepare_image to be the finetune-online image"
        )
    return error


def _leave_behind(artifact_root: str, member: sweeps.Member | None, line: str, *, final: bool) -> None:
    """The reason where others find it: the sweep, whoever closes the run, and whoever looks at the pod."""
    try:
        if member is not None and final:
            sweeps.record_failure(open_store(artifact_root), member, line)
        if POD_VARIABLE in os.environ:
            TERMINATION_LOG.write_text(line)
            if key := os.environ.get(RUN_KEY_VARIABLE):
                failures.record(open_store(artifact_root), key, line, final=final)
    except Exception as error:  # the failure itself is on its way and says more
        _say(f"note: the reason is told here only: {explain(error)[0]}")
