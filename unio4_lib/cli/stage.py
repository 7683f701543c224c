"""``unio4 stage``: one stage by hand or by an orchestrator."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.artifacts.store import open_store
from unio4_lib.errors import InputError
from unio4_lib.files import output_file
from unio4_lib.learning.journal import Preemption
from unio4_lib.methods.configs import method_of
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import RunConfig, config_digest
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.repair import Stages
from unio4_lib.tracking.tracker import Tracking


def run_one_stage(
    name: str,
    config: RunConfig,
    inputs: Sequence[str],
    output: Path | None,
    *,
    artifact_root: str | os.PathLike[str],
    reuse: bool,
    cache: Path | None,
    preemption: Preemption,
    tracking: Tracking,
    run_key: str | None,
    console: Console | None,
) -> dict[str, Any]:
    """Run a stage from ``KIND=FILE`` references and write the reference to what it made."""
    refs = dict(_read_input(text) for text in inputs)
    place = None if output is None else output_file(output)  # before the work
    with (
        Reporter(console) as reporter,
        StageContext(
            artifact_root, reporter=reporter, cache=cache, reuse=reuse, preemption=preemption
        ) as context,
    ):
        # Stages of one config belong to one run unless someone knows better.
        key = run_key or config_digest(config)[:16]
        spools = context.work / "tracking"
        with tracking.tracker(key, spools / key / name, spools, reporter.say) as tracker:
            context.tracker = tracker
            method = method_of(config)
            outcome = Stages(method.steps, config, context).run(method.step(name), refs)
    if place is not None:
        outcome.ref.save(place)
    return {**asdict(outcome), "ref": outcome.ref.model_dump()}


def _read_input(text: str) -> tuple[str, ArtifactRef]:
    kind, equals, path = text.partition("=")
    if not equals or not kind or not path:
        raise InputError(f"--input {text}: expected KIND=FILE, for example --input dataset=dataset.json")
    ref = ArtifactRef.load(Path(path))
    try:
        manifest = open_store(ref.root).manifest(ref.digest)
    except StoreError:
        raise
    except InputError:  # missing or damaged: the stage makes it again where it can
        return kind, ref
    ref.check(manifest, path)
    return kind, ref
