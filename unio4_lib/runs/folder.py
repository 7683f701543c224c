"""What a run leaves behind: one folder for people and programs."""

import itertools
import json
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import NO_SPACE, InputError, Preempted, without_user_info
from unio4_lib.methods.configs import method_of
from unio4_lib.methods.pages import write_page
from unio4_lib.report.html import REPORT
from unio4_lib.report.record import CONFIG, FACTS, FAILED, LOGS, SUMMARY, read_run
from unio4_lib.report.summary import read_summary
from unio4_lib.settings.model import RunConfig, config_digest
from unio4_lib.settings.pages import config_yaml
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.repair import Stages
from unio4_lib.stages.step import DECISIONS_FILE, LOG_FILE, POLICY, STAGE_FACTS_FILE, SUMMARY_FILE
from unio4_lib.tracking.address import NO_TRACKING, without_password

POLICIES, REFERENCES = "policies", "artifacts"
TASKS = "pipeline"  # a folder for each task of the pipeline, with its log
PRIVATE = 0o700  # of folders with logs: only their owner enters


class RunFolder:
    """The folder of one run; what is written appears whole or not at all."""

    def __init__(self, output: Path, config: RunConfig) -> None:
        self.logs: dict[str, Any] = {}
        self.config, self.method, self.refs = config, method_of(config), dict[str, ArtifactRef]()
        try:
            self.path = _new_folder(output, config)
            self.write(CONFIG, config_yaml(config))
        except OSError as error:
            if hasattr(self, "path"):
                shutil.rmtree(self.path, ignore_errors=True)
            if error.errno in NO_SPACE:
                raise
            raise InputError(
                f"{output}: cannot be written ({error.strerror}); choose another --output"
            ) from error

    @property
    def run_id(self) -> str:
        return self.path.name

    def write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.new"
        try:
            temporary.write_text(text)
            temporary.replace(self.path / name)
        finally:
            temporary.unlink(missing_ok=True)

    def keep(self, kind: str, ref: ArtifactRef, context: StageContext) -> None:
        """Remember an artifact, and copy what people want at hand: a policy, the gate's decisions, curves."""
        (self.path / REFERENCES).mkdir(exist_ok=True)
        ref.save(self.path / REFERENCES / f"{kind}.json")
        self.refs[kind] = ref
        if kind in ("dataset", "report"):  # the first has nothing of the kind; the second comes at the end
            return
        folder = self._stages(context).hold(ref, self.refs)
        self.logs[self.method.stage_names()[kind]] = json.loads((folder / LOG_FILE).read_bytes())
        if (folder / POLICY).is_dir():
            self._copy(folder / POLICY, f"{POLICIES}/{kind}")
        if (folder / DECISIONS_FILE).exists():
            self._copy(folder / DECISIONS_FILE, DECISIONS_FILE)

    def result(self, context: StageContext) -> dict[str, Any]:
        """Copy the curves and facts of all stages; returns the summary of the computation."""
        report = self._stages(context).hold(self.refs["report"], self.refs)
        self._copy(report / STAGE_FACTS_FILE, FACTS)
        names = self.method.stage_names().values()
        logs = {name: self.logs[name] for name in names if name in self.logs}
        self.write(LOGS, json.dumps(logs))
        summary = read_summary(json.loads((report / SUMMARY_FILE).read_bytes()), str(report / SUMMARY_FILE))
        return summary.to_json()

    def _stages(self, context: StageContext) -> Stages:
        return Stages(self.method.steps, self.config, context)

    def _copy(self, source: Path, name: str) -> None:
        target = self.path / name
        temporary = self.path / f".{target.name}.new"
        try:
            if source.is_dir():
                shutil.copytree(source, temporary)
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
            else:
                shutil.copyfile(source, temporary)
            temporary.replace(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and the report, and let ``latest`` point here.

        The report is drawn anew rather than copied: it speaks of this run's name and times.
        """
        self.write(SUMMARY, json.dumps(summary, indent=2) + "\n")
        write_page(read_run(self.path), self.path / REPORT, self.method)
        link = self.path.parent / f".latest-{os.getpid()}"
        try:
            link.symlink_to(self.run_id)
            link.replace(self.path.parent / "latest")
        finally:
            link.unlink(missing_ok=True)

    def place(self, artifact_root: str, tracking: str | None) -> dict[str, Any]:
        """Where all of it lies and on what it was computed, for whoever looks for it later."""
        logs = self.path / TASKS
        return {
            "folder": str(self.path.absolute()),
            "artifact_root": artifact_root,
            "tracking": None if tracking in (None, NO_TRACKING) else without_password(str(tracking)),
            "logs": str(logs.absolute()) if logs.is_dir() else None,
            "host": platform.node(),
            "cpu": f"{_processor()}, {os.cpu_count()} cores",
        }

    def fail(self, error: BaseException, finished: list[str]) -> None:
        """Say in the folder that the run failed; bad input and a full disk leave no folder without a policy.

        A folder without ``summary.json`` is not a finished run, whatever became of its process.
        """
        if isinstance(error, InputError | OSError) and not (self.path / POLICIES).exists():
            shutil.rmtree(self.path, ignore_errors=True)
            return
        stopped = isinstance(error, KeyboardInterrupt | Preempted)
        reason = "interrupted" if stopped else without_user_info(f"{type(error).__name__}: {error}")
        with suppress(OSError):  # the error itself is on its way and says more
            self.write(FAILED, f"{reason}\nfinished stages: {', '.join(finished) or 'none'}\n")


def _new_folder(output: Path, config: RunConfig) -> Path:
    """A folder that no other run has: time and config, and a number if they began in one second."""
    output.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{config_digest(config)[:8]}"
    for number in itertools.count(1):
        path = output / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(mode=PRIVATE)
            return path
    raise AssertionError("there is always another number")


def _processor() -> str:
    """The name of the processor, as far as the system knows it."""
    with suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def circumstances(run_id: str, config: RunConfig, outcomes: Mapping[str, StageOutcome]) -> dict[str, Any]:
    """When and how a run came to its findings, which may be older than itself."""
    return {
        "run_id": run_id,
        "config_digest": config_digest(config),
        "stages": {
            name: {
                "seconds": round(outcome.seconds, 2),
                "reused": outcome.reused,
                "resumed": outcome.resumed,
                "peak_memory_bytes": outcome.peak_memory_bytes,
                "artifact_digest": outcome.ref.digest,
            }
            for name, outcome in outcomes.items()
        },
    }
