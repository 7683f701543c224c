"""Scores of all policies in the simulator, after all choices are made, and what the run says of itself."""

import hashlib
from typing import Any

from unio4_lib import __version__
from unio4_lib.config import config_digest
from unio4_lib.data.info import DatasetInfo
from unio4_lib.evaluation import EpisodeStats
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.online.threads import torch_threads
from unio4_lib.stages.catalog import CURVE_FILE, FACTS_FILE, STAGE_OF_KIND, SUMMARY_FILE
from unio4_lib.stages.method import score
from unio4_lib.stages.runner import PEAK_MEMORY, SECONDS, StageWork
from unio4_lib.stages.stored import read_policy, transitions_of
from unio4_lib.stages.task import Task

DIP_SHARE = 0.1  # the dip is looked for in this first share of online steps


def compute(work: StageWork) -> None:
    """Score behavior, offline and online policies, and sum up."""
    transitions = transitions_of(work)
    with torch_threads(1):
        scores = _scores(work, Task.of(transitions))
    facts = {name: _score_facts(transitions.info, stats) for name, stats in scores.items()}
    work.metrics.update({f"{name}/mean_return": values["mean_return"] for name, values in facts.items()})
    work.write(SUMMARY_FILE, _summary(work, facts))
    work.finish([], facts)


def _scores(work: StageWork, task: Task) -> dict[str, list[EpisodeStats]]:
    """The behavior's score is that of all members."""
    behavior = read_policy(work, "behavior")
    policies = [("behavior", behavior, member) for member in range(behavior.spec.members)]
    policies += [(kind, read_policy(work, kind), 0) for kind in ("offline", "online")]
    episodes, seed = work.config.evaluate.episodes, work.config.evaluate.seed
    scores: dict[str, list[EpisodeStats]] = {}
    with work.context.reporter.stage("report", episodes * len(policies)) as update:
        for count, (name, policy, member) in enumerate(policies, start=1):
            work.context.preemption.check()
            stats = score(task, policy, episodes, seed, member=member)
            scores.setdefault(name, []).append(stats)
            update(episodes * count, f"{name} {stats.mean:.0f} ± {stats.stderr:.0f}")
    return scores


def _score_facts(info: DatasetInfo, stats: list[EpisodeStats]) -> dict[str, Any]:
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
    return facts


def _summary(work: StageWork, scores: dict[str, Any]) -> dict[str, Any]:
    """The summary of the computation; a run puts its own name and times over it."""
    curve = [tuple(point) for point in work.read("online", CURVE_FILE)]
    config = work.config
    return {
        "run_id": config_digest(config)[:16],
        "unio4_version": __version__,
        "config_digest": config_digest(config),
        "seed": config.seed,
        "dataset": work.read("dataset", FACTS_FILE),
        "stages": {STAGE_OF_KIND[kind]: _stage_facts(work, kind) for kind in work.stage.inputs},
        "scores": scores,
        "gate": work.read("offline", FACTS_FILE),
        "online_curve": curve,
        "dip": _dip(curve, config.finetune.env_steps),
        "policy_digest": policy_digest(read_policy(work, "online")),
    }


def _stage_facts(work: StageWork, kind: str) -> dict[str, Any]:
    """What a stage cost when it was computed."""
    metrics = work.manifest(kind).metrics
    return {
        "seconds": metrics[SECONDS],
        "reused": False,
        "resumed": False,
        "peak_memory_bytes": int(metrics[PEAK_MEMORY]),
        "artifact_digest": work.refs[kind].digest,
    }


def _dip(points: list[tuple[int, float, float]], total: int) -> float | None:
    """Worst score in the first tenth of the online steps over the offline one; None without a scale."""
    before = points[0][1]
    early = [value for steps, value, _ in points[1:] if steps <= max(DIP_SHARE * total, points[1][0])]
    return min(early) / before if early and before > 0 else None


def policy_digest(policy: GaussianPolicy) -> str:
    """SHA-256 over the weights: equal runs have equal digests."""
    state = policy.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
