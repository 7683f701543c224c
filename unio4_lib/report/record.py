"""What a report is made from: everything worth showing about one run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unio4_lib.errors import InputError
from unio4_lib.report.facts import Log, LogLine
from unio4_lib.report.part import P, Part, read_part
from unio4_lib.report.summary import Costs, Score, Summary, read_summary
from unio4_lib.settings.yaml_io import read_yaml

SUMMARY, CONFIG, LOGS, FACTS, DECISIONS, CURVE = (
    "summary.json",
    "config.yaml",
    "metrics.json",
    "facts.json",
    "decisions.json",
    "curve.json",
)
FAILED = "failed.txt"


class Decision(Part):
    """What a gate said of one candidate."""

    step: int
    member: int  # track
    candidate: float  # its estimate
    current: float  # that of the policy it was to replace
    difference: float
    stderr: float
    accepted: bool
    refusal: str | None = None  # the test that refused


class Course(Part):
    """How a run went: by its gate offline, and by evaluations online."""

    decisions: list[Decision] = Field([])
    # Environment steps, mean return, standard error.
    curve: list[Annotated[list[float], Field(min_length=3, max_length=3)]] = Field([])


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run."""

    log: list[LogLine]  # in the order of steps
    told: Any  # its facts as they were read, of which only their section knows the class
    seconds: float
    reused: bool
    resumed: bool
    peak_memory_bytes: int
    digest: str  # of the stage's artifact; empty where it has none
    place: str = field(default=FACTS, compare=False)  # where its facts were read

    def facts(self, kind: type[P]) -> P:
        """Its facts; those that the run did not record are empty."""
        return read_part(kind, self.told, self.place, "facts")

    def series(self, metric: str) -> dict[str, list[tuple[int, float]]]:
        """Points (step, value) of a metric: under "" if it is one number, else by member."""
        found: dict[str, list[tuple[int, float]]] = {}
        for entry in self.log:
            for key, value in entry.values.items():
                if key == metric:
                    found.setdefault("", []).append((entry.step, value))
                elif key.startswith(f"{metric}/"):
                    found.setdefault(key.removeprefix(f"{metric}/"), []).append((entry.step, value))
        return found

    def last(self, metric: str) -> float | None:
        """The last value of a metric, averaged over members; None where it was never logged."""
        ends = [points[-1][1] for points in self.series(metric).values()]
        return sum(ends) / len(ends) if ends else None


@dataclass(frozen=True)
class RunRecord:
    """One run."""

    summary: Summary
    config: dict[str, Any]
    stages: dict[str, StageRecord]
    decisions: list[Decision]
    curve: list[list[float]]  # environment steps, mean return, standard error

    @property
    def name(self) -> str:
        return self.summary.run_id

    @property
    def env_id(self) -> str:
        return self.summary.dataset.env_id

    def stage(self, name: str) -> StageRecord:
        """The stage of that name, or one that has nothing to show."""
        return self.stages.get(name, StageRecord([], {}, 0.0, False, False, 0, ""))

    def score(self, policy: str) -> Score | None:
        """Of "behavior", "start", "offline" or "online"."""
        return self.summary.scores.get(policy)

    def setting(self, name: str) -> Any:
        """A setting by its dotted key; None where this run did not have it."""
        value: Any = self.config
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        return value


def make_record(
    summary: Summary,
    config: dict[str, Any],
    *,
    logs: Mapping[str, Any],
    facts: Mapping[str, Any],
    course: Course,
    places: tuple[str, str] = (LOGS, FACTS),
) -> RunRecord:
    """Join what is known of each stage: its cost from the summary, which may not know all of them.

    Logs and facts are JSON, ``places`` the files that they come from.
    """
    costs = summary.stages
    unknown = {name: Costs() for name in facts if name not in costs}
    stages = {
        name: StageRecord(
            log=read_part(Log, logs.get(name, []), f"{places[0]}: {name}", "a log").entries,
            told=facts.get(name, {}),
            seconds=about.seconds,
            reused=about.reused,
            resumed=about.resumed,
            peak_memory_bytes=about.peak_memory_bytes,
            digest=about.artifact_digest,
            place=f"{places[1]}: {name}",
        )
        for name, about in {**costs, **unknown}.items()
    }
    return RunRecord(summary, config, stages, course.decisions, course.curve)


def read_run(folder: Path) -> RunRecord:
    """The record of a finished run's folder; only the summary and the settings have to be there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a run such as runs/latest")
    if not (folder / SUMMARY).is_file():
        reason = f", it failed (see {folder / FAILED})" if (folder / FAILED).is_file() else ""
        raise InputError(f"{folder}: no {SUMMARY} here{reason}; expected the folder of a finished run")
    summary = read_summary(_read_json(folder / SUMMARY, dict), str(folder / SUMMARY))
    config = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG}: {type(config).__name__} at the top; expected settings")
    course = {
        "decisions": _read_json(folder / DECISIONS, list),
        "curve": _read_json(folder / CURVE, list) or summary.online_curve or [],
    }
    return make_record(
        summary,
        config,
        logs=_read_json(folder / LOGS, dict),
        facts=_read_json(folder / FACTS, dict),
        course=read_part(Course, course, f"{folder / DECISIONS} or {CURVE}", "a file"),
        places=(str(folder / LOGS), str(folder / FACTS)),
    )


def _read_json(path: Path, kind: type) -> Any:
    """The content of a file, or an empty one where there is no such file."""
    if not path.is_file():
        return kind()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); expected a file written by unio4") from error
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise InputError(f"{path}: {type(content).__name__} at the top; expected {expected}")
    return content
