"""What is tracked of a stage: where it came from when it begins, what became of it when it ends.

Reused and resumed stages tell everything again: a number is known by its name and step, so a run shows
whole curves whichever process, on whichever machine, has computed them.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unio4_lib import __version__, words
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.report.facts import read_log
from unio4_lib.report.summary import Summary, read_summary
from unio4_lib.settings.model import RunConfig, config_digest
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.fingerprint import stage_settings
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.step import (
    CURVE_FILE,
    DECISIONS_FILE,
    FACTS_FILE,
    LOG_FILE,
    POLICY,
    SUMMARY_FILE,
    Step,
    final_policy,
)
from unio4_lib.tracking.tracker import StageTracker

LIBRARIES = ("torch", "mujoco", "gymnasium", "numpy")
# Groups of metrics, each of which MLflow shows as a section of charts.
SCORES, NORMALIZED, ERRORS, GATE = "scores", "scores_normalized", "scores_stderr", "gate"
ONLINE = "online"
SECONDS, COSTS = "seconds", "costs"
CLONES = {"behavior": "clones"}  # as the report calls them
DATASET_FIGURES = ("transitions", "episodes", "mean_return")
DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows as text
SHOWN_FILES = ("*.html", "*.svg", "*.png", SUMMARY_FILE, DECISIONS_FILE, FACTS_FILE)


def named(stage: str, values: Mapping[str, float]) -> dict[str, float]:
    """The names of a training log under the stage's own name, by which MLflow groups its charts."""
    return {f"{stage}/{name.partition('/')[2] or name}": value for name, value in values.items()}


@cache
def versions() -> dict[str, str]:
    """Tags that say which code made the numbers; an image has only what its stages need."""
    tags = {"unio4.version": __version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            tags[f"{name}.version"] = version(name)
    return tags


def begin(tracker: StageTracker, stage: Step, config: RunConfig, refs: Mapping[str, ArtifactRef]) -> None:
    """Settings, versions and inputs."""
    tracker.log_params(stage_settings(stage, config))
    tracker.set_tags(
        versions()
        | {"unio4.config_digest": config_digest(config), "unio4.dataset": config.dataset}
        | {f"unio4.input.{kind}": ref.digest for kind, ref in refs.items()}
        | {DESCRIPTION: stage.about}
    )
    if (dataset := refs.get("dataset")) is not None:
        _log_dataset(tracker, config, dataset, {})


def finish(
    tracker: StageTracker,
    stage: Step,
    config: RunConfig,
    refs: Mapping[str, ArtifactRef],
    outcome: StageOutcome,
    context: StageContext,
) -> None:
    """Curves, figures and the artifact; the report tells about the run as a whole, too."""
    tracker.set_tags(
        {
            "unio4.artifact": outcome.ref.uri,
            "unio4.reused": outcome.reused,
            "unio4.resumed": outcome.resumed,
        }
    )
    if not outcome.reused:
        costs = {"seconds": round(outcome.seconds, 2), "peak_memory_bytes": outcome.peak_memory_bytes}
        tracker.log_metrics({f"{COSTS}/{name}": value for name, value in costs.items()}, 0)
    if stage.kind == "dataset":
        _log_dataset(tracker, config, outcome.ref, outcome.metrics)
        tracker.log_metrics(named(stage.name, outcome.metrics), 0)
    else:
        folder = context.hold(outcome.ref)
        _log_curves(tracker, stage.name, folder)
        for pattern in SHOWN_FILES:
            for path in sorted(folder.glob(pattern)):
                tracker.log_artifact(path)
    if stage.kind == "report":
        with context.tracker.run() as run:
            tell_settings(run, config)
            _tell_of_the_run(run, config, refs["dataset"], context.hold(outcome.ref))
            run.log_model(context.hold(refs[final_policy(refs)]) / POLICY)


def tell_settings(tracker: StageTracker, config: RunConfig) -> None:
    """What the run above the stages says of itself from the start."""
    tracker.log_params(config.model_dump(mode="json"))
    tracker.set_tags(
        versions()
        | {"unio4.config_digest": config_digest(config), "unio4.dataset": config.dataset}
        | {DESCRIPTION: _title(config)}
    )


def _title(config: RunConfig) -> str:
    return (
        f"**{config.title}** on `{config.dataset}`, seed {config.seed}. The nested runs are the stages; "
        "each has its training curves under *Model metrics*."
    )


def _tell_of_the_run(run: StageTracker, config: RunConfig, dataset: ArtifactRef, report: Path) -> None:
    """Scores and costs where runs are compared with each other."""
    summary = read_summary(json.loads((report / SUMMARY_FILE).read_bytes()), str(report / SUMMARY_FILE))
    # MLflow keeps the first profile of a dataset, and this one may arrive before the stage's.
    _log_dataset(run, config, dataset, summary.dataset.model_dump(include=set(DATASET_FIGURES)))
    run.log_metrics(_headline(summary), 0)
    for steps, mean, _ in summary.online_curve or ():
        run.log_metrics({f"{ONLINE}/return": mean}, int(steps))
    run.set_tags({DESCRIPTION: _description(config, summary)})
    for path in sorted([*report.glob("*.html"), report / SUMMARY_FILE]):
        run.log_artifact(path)


def _description(config: RunConfig, summary: Summary) -> str:
    """The result as Markdown; the same figures as in the report."""
    rows: list[tuple[str, float | None, float | None, float | None]] = [
        ("data", summary.dataset.mean_return, None, summary.dataset.normalized)
    ]
    for name, score in summary.scores.items():
        rows.append((CLONES.get(name, name), score.mean_return, score.stderr, score.normalized))
    table = ["| policy | return | normalized |", "|---|---|---|"]
    table += [
        f"| {name} | {words.with_error(mean, stderr)} | {words.number(normalized)} |"
        for name, mean, stderr, normalized in rows
    ]
    gate = ""
    if summary.gate is not None:
        gate = f"The gate accepted {summary.gate.accepted} of {summary.gate.checks} candidates. "
    where = "The report is `report.html` under *Artifacts*; the delivered policy is the logged model."
    return "\n\n".join([_title(config), "\n".join(table), f"{gate}{where}"])


def _headline(summary: Summary) -> dict[str, float]:
    """The figures by which runs are compared."""
    figures: dict[str, float] = {}
    for name, score in summary.scores.items():
        figures[f"{SCORES}/{name}"] = score.mean_return
        figures[f"{ERRORS}/{name}"] = score.stderr or 0.0
        if score.normalized is not None:
            figures[f"{NORMALIZED}/{name}"] = score.normalized
    # Short names for the list of runs, where one wants one column.
    last = list(summary.scores.values())[-1]
    figures["score"] = last.mean_return
    if last.normalized is not None:
        figures["score_normalized"] = last.normalized
    if summary.dip is not None:
        figures[f"{SCORES}/dip"] = summary.dip
    if summary.gate is not None:
        figures |= {f"{GATE}/checks": summary.gate.checks, f"{GATE}/accepted": summary.gate.accepted}
    for stage, costs in summary.stages.items():
        figures[f"{SECONDS}/{stage}"] = costs.seconds
    return figures


def _log_dataset(
    tracker: StageTracker, config: RunConfig, ref: ArtifactRef, figures: Mapping[str, float]
) -> None:
    profile = {**figures, "bytes": ref.bytes, "artifact": ref.uri}
    tracker.log_dataset(config.dataset, source=config.dataset, digest=ref.digest, profile=profile)


def _log_curves(tracker: StageTracker, stage: str, folder: Path) -> None:
    """The training log, the gate's decisions and the online curve, as far as the artifact has them."""
    for line in read_log(folder / LOG_FILE).entries:
        tracker.log_metrics(named(stage, line.values), line.step)
    if (folder / DECISIONS_FILE).exists():
        for entry in json.loads((folder / DECISIONS_FILE).read_bytes()):
            step, member = entry["step"], entry["member"]
            figures = ("candidate", "current", "difference", "stderr", "accepted")
            tracker.log_metrics({f"{stage}/{GATE}/{name}/{member}": entry[name] for name in figures}, step)
    if (folder / CURVE_FILE).exists():
        for steps, mean, stderr in json.loads((folder / CURVE_FILE).read_bytes()):
            tracker.log_metrics(named(stage, {"return": mean, "return_stderr": stderr}), steps)
    if stage == "report":
        scores = json.loads((folder / SUMMARY_FILE).read_bytes())["scores"]
        tracker.log_metrics({f"{SCORES}/{name}": score["mean_return"] for name, score in scores.items()}, 0)
