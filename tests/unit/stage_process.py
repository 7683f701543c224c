"""Stages in processes of their own that can be killed: forked from one that has imported everything."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from whole_runs import find_stage

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.context import NullTracker, StageContext
from unio4_lib.stages.runner import run_stage

LONGEST_SECONDS = 240.0  # a busy machine is slow, not stuck
PRELOADED = [
    "unio4_lib.cli.commands",
    "unio4_lib.cli.stage",
    "unio4_lib.learning.checkpoint",
    "unio4_lib.methods.configs",
    "unio4_lib.methods.pages",
    "unio4_lib.sources.grammar",
    "unio4_lib.sources.collect",
    *(stage.module for name in ("unio4", "iql") for stage in find_method(name).steps),
]


class WritingTracker(NullTracker):
    """Writes the time and the step of every log entry to a file, so that a killed process has said it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def stage(self, name: str, fingerprint: str) -> Iterator["WritingTracker"]:
        with self.path.open("a") as file:
            file.write(f"{time.time()} 0\n")
        yield self

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.time()} {step}\n")


def steps_of(path: Path) -> list[tuple[float, int]]:
    """What such a file says: time and step; the first line is the beginning."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(moment), int(step)) for moment, step in map(str.split, lines)]


def work(name: str, config: dict[str, Any], refs: dict[str, Any], place: Path, root: str) -> None:
    """One stage whose local disk is ``place``; the reference to its artifact is written there."""
    os.environ["MINARI_DATASETS_PATH"] = str(place / "minari")
    inputs = {kind: ArtifactRef.model_validate(values) for kind, values in refs.items()}
    tracker = WritingTracker(place / "steps")
    with StageContext(root, cache=place / "cache", tracker=tracker) as context:
        outcome = run_stage(find_stage(name), UniO4Config.model_validate(config), inputs, context)
    if not outcome.resumed and not outcome.reused:
        (place / "from-the-beginning").touch()
    outcome.ref.save(place / "ref.json")


def start(
    name: str, config: UniO4Config, inputs: Mapping[str, ArtifactRef], place: Path, root: str
) -> BaseProcess:
    """A stage in a new process."""
    place.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    refs = {kind: ref.model_dump() for kind, ref in inputs.items()}
    arguments = (name, config.model_dump(), refs, place, root)
    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    deadline = time.monotonic() + LONGEST_SECONDS
    while not steps_of(place / "steps") and process.is_alive():
        assert time.monotonic() < deadline, f"{name} does not begin"
        time.sleep(0.005)
    return process
