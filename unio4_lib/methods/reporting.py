"""The last stage of every method: scores of its policies in the simulator, after all choices are made."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from typing import Any

from unio4_lib import __version__, words
from unio4_lib.data.info import DatasetInfo
from unio4_lib.learning.evaluation import EpisodeStats
from unio4_lib.methods.method import Method
from unio4_lib.methods.pages import write_page
from unio4_lib.nets.policy import Policy
from unio4_lib.report.facts import OfflineFacts, OnlineFacts, ReportFacts
from unio4_lib.report.html import REPORT
from unio4_lib.report.phases import find_dip
from unio4_lib.report.record import Course, Decision, make_record
from unio4_lib.report.summary import SCHEMA, Costs, Data, Gate, Score, Summary
from unio4_lib.settings.keys import flat_settings
from unio4_lib.settings.model import config_digest
from unio4_lib.stages.runner import PEAK_MEMORY, SECONDS, StageWork
from unio4_lib.stages.step import (
    CURVE_FILE,
    FACTS_FILE,
    LOG_FILE,
    STAGE_FACTS_FILE,
    SUMMARY_FILE,
    final_policy,
)
from unio4_lib.stages.stored import read_policy
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import score

VERSIONS = ("torch", "numpy", "gymnasium", "mujoco")

Scores = dict[str, list[EpisodeStats]]  # of one policy, or of each member of an ensemble


@dataclass(frozen=True)
class Scored:
    """A policy that gets a score under a name; members under one name are averaged."""

    name: str
    policy: Policy
    member: int = 0


@dataclass(frozen=True)
class Findings:
    """What a method's own part of the report stage found."""

    gate: Gate | None = None
    facts: ReportFacts = field(default_factory=ReportFacts)  # beside the scores
    decisions: Sequence[Decision] = ()


def delivered(work: StageWork[Any]) -> list[Scored]:
    """The policies that every method delivers."""
    return [Scored(kind, read_policy(work, kind)) for kind in ("offline", "online") if kind in work.refs]


def score_facts(
    work: StageWork[Any], policies: Sequence[Scored], info: DatasetInfo, task: Task
) -> dict[str, Score]:
    """Scores of all policies, each as it is delivered, and by both ways of acting."""
    acts = {"offline": work.facts("offline", OfflineFacts).acts}
    by_mean, sampled = _scores(work, task, policies)
    scores = {}
    for name, parts in by_mean.items():
        way = acts.get(name, "mean")  # what is delivered acts so, and its score is that
        own = sampled[name] if way == "sampled" else parts
        both = {"mean_action": _score(info, parts), "sampled": _score(info, sampled[name])}
        scores[name] = _score(info, own, acts=way, **both)
    work.metrics.update({f"{name}/mean_return": found.mean_return for name, found in scores.items()})
    return scores


def finish(work: StageWork[Any], method: Method, scores: dict[str, Score], found: Findings) -> None:
    """The summary, the facts and the page."""
    names = method.stage_names()
    stages = {kind: names[kind] for kind in work.refs}
    summary = _summary(work, method, scores)
    if found.gate is not None:
        summary.gate = found.gate
    facts = found.facts.model_copy(update={"scores": scores})
    work.write(SUMMARY_FILE, summary.to_json())
    work.finish([], facts)
    record = make_record(
        summary,
        work.config.model_dump(mode="json"),
        logs={name: work.read(kind, LOG_FILE) for kind, name in stages.items()},
        facts={name: work.read(kind, FACTS_FILE) for kind, name in stages.items()}
        | {work.stage.name: facts.to_json()},
        course=Course(decisions=list(found.decisions), curve=_curve(work)),
    )
    work.write(STAGE_FACTS_FILE, {name: stage.told for name, stage in record.stages.items()})
    write_page(record, work.folder / REPORT, method)


def _scores(work: StageWork[Any], task: Task, policies: Sequence[Scored]) -> tuple[Scores, Scores]:
    """Scores of mean actions and of sampled ones."""
    episodes, seed = work.config.evaluate.episodes, work.config.evaluate.seed
    scores: dict[bool, Scores] = {False: {}, True: {}}
    with work.context.reporter.stage("report", 2 * episodes * len(policies)) as update:
        for count, (sampled, one) in enumerate(product(scores, policies), start=1):
            work.context.preemption.check()
            stats = score(task, one.policy, episodes, seed, member=one.member, sampled=sampled)
            scores[sampled].setdefault(one.name, []).append(stats)
            how = ", sampled actions" if sampled else ""
            update(episodes * count, f"{one.name}{how} {words.with_error(stats.mean, stats.stderr)}")
    return scores[False], scores[True]


def _score(info: DatasetInfo, stats: list[EpisodeStats], **more: Any) -> Score:
    means = [float(part.mean) for part in stats]
    errors = [float(part.stderr) for part in stats]
    mean = sum(means) / len(means)
    stderr = sum(error**2 for error in errors) ** 0.5 / len(errors)
    facts: dict[str, Any] = {
        "mean_return": mean,
        "stderr": stderr,
        "normalized": info.normalized(mean),
        "episodes": sum(len(part.returns) for part in stats),
    }
    if len(means) > 1:
        facts["members"] = means
    return Score(**facts, **more)


def _summary(work: StageWork[Any], method: Method, scores: dict[str, Score]) -> Summary:
    """The summary of the computation; a run puts its own name and times over it."""
    curve = _curve(work)
    settings: Mapping[str, Any] = flat_settings(work.config.model_dump(mode="json"))
    fall = find_dip(curve, settings["finetune.env_steps"], settings["finetune.warmup_steps"])
    names = method.stage_names()
    return Summary(
        schema_version=SCHEMA,
        run_id=config_digest(work.config)[:16],
        unio4_version=__version__,
        versions={name: version(name) for name in VERSIONS},
        config_digest=config_digest(work.config),
        method=method.name,
        seed=work.config.seed,
        dataset=work.facts("dataset", Data),  # the facts say more
        stages={names[kind]: _costs(work, kind) for kind in work.refs},
        scores=scores,
        online_curve=curve,
        delivered_at=work.facts("online", OnlineFacts).delivered_at if "online" in work.refs else None,
        dip=None if fall is None else fall.ratio,
        policy_digest=policy_digest(read_policy(work, final_policy(work.refs))),
    )


def _curve(work: StageWork[Any]) -> list[Any]:
    """The scores while fine-tuning; none where the policy stayed offline."""
    curve: list[Any] = work.read("online", CURVE_FILE) if "online" in work.refs else []
    return curve


def _costs(work: StageWork[Any], kind: str) -> Costs:
    """What a stage cost when it was computed."""
    metrics = work.manifest(kind).metrics
    return Costs(
        seconds=metrics[SECONDS],
        reused=False,
        resumed=False,
        peak_memory_bytes=int(metrics[PEAK_MEMORY]),
        artifact_digest=work.refs[kind].digest,
    )


def policy_digest(policy: Policy) -> str:
    """SHA-256 over the weights: equal runs have equal digests."""
    state = policy.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
