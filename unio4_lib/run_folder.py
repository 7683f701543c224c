"""What a run leaves behind: one folder, and how long each stage took."""

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unio4_lib.config import RunConfig, config_digest
from unio4_lib.config_docs import config_yaml
from unio4_lib.errors import NO_SPACE, InputError
from unio4_lib.nets.files import save_policy
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.stages.method import STAGES, Task

POLICIES, FAILED = "policies", "failed.txt"


class RunFolder:
    """The folder of one run; what is written appears whole or not at all."""

    def __init__(self, output: Path, config: RunConfig) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        digest = config_digest(config)[:8]
        self.run_id = f"{stamp}-{digest}"
        try:
            if (output / self.run_id).exists():  # two runs of one config in one second
                self.run_id = f"{self.run_id}-{os.getpid()}"
            self.path = output / self.run_id
            self.path.mkdir(parents=True)
            self.write("config.yaml", config_yaml(config))
        except OSError as error:
            shutil.rmtree(output / self.run_id, ignore_errors=True)
            if error.errno in NO_SPACE:
                raise
            raise InputError(
                f"{output}: cannot be written ({error.strerror}); choose another --output"
            ) from error

    def write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.new"
        try:
            temporary.write_text(text)
            temporary.replace(self.path / name)
        finally:
            temporary.unlink(missing_ok=True)

    def policy(self, name: str, policy: GaussianPolicy, task: Task, **facts: Any) -> None:
        temporary = self.path / f".{name}.new"
        try:
            save_policy(policy, temporary, env_id=task.env_id, env_kwargs=task.env_kwargs, **facts)
            (self.path / POLICIES).mkdir(exist_ok=True)
            temporary.rename(self.path / POLICIES / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and let ``latest`` point here."""
        self.write("summary.json", json.dumps(summary, indent=2) + "\n")
        link = self.path.parent / f".latest-{os.getpid()}"
        try:
            link.symlink_to(self.run_id)
            link.replace(self.path.parent / "latest")
        finally:
            link.unlink(missing_ok=True)

    def fail(self, error: BaseException, finished: list[str]) -> None:
        """Say in the folder that the run failed; bad input and a full disk leave no folder without a policy.

        A folder without ``summary.json`` is not a finished run, whatever became of its process.
        """
        if isinstance(error, InputError | OSError) and not (self.path / POLICIES).exists():
            shutil.rmtree(self.path, ignore_errors=True)
            return
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # the error itself is on its way and says more
            self.write(FAILED, f"{reason}\nfinished stages: {', '.join(finished) or 'none'}\n")


class Timer:
    """Seconds and peak memory of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, Any]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.stages[name] = {
            "seconds": round(time.perf_counter() - began, 2),
            "reused": False,
            "resumed": False,
            "peak_memory_bytes": peak,
        }

    def in_order(self) -> dict[str, dict[str, Any]]:
        """Stages in the order of the method, whichever ended first."""
        return {name: self.stages[name] for name in STAGES if name in self.stages}
