"""Scores of all policies in the simulator, after all choices are made, and what the run says of itself."""

import hashlib
from importlib.metadata import version
from itertools import product
from typing import Any

from unio4_lib import __version__, words
from unio4_lib.data.info import DatasetInfo
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.evaluation import EpisodeStats
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4.facts import ope_facts
from unio4_lib.methods.unio4.offline_policy import World
from unio4_lib.methods.unio4.trainings import SEED_RANGE, choose_device, score
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.policy import GaussianPolicy, stack_policies
from unio4_lib.report.html import REPORT, write_report
from unio4_lib.report.phases import find_dip
from unio4_lib.report.record import RunRecord, make_record
from unio4_lib.settings.model import config_digest
from unio4_lib.settings.weightings import UNIFORM
from unio4_lib.stages.catalog import (
    CURVE_FILE,
    DECISIONS_FILE,
    FACTS_FILE,
    LOG_FILE,
    STAGE_FACTS_FILE,
    STAGE_OF_KIND,
    SUMMARY_FILE,
    final_policy,
)
from unio4_lib.stages.runner import PEAK_MEMORY, SECONDS, StageWork
from unio4_lib.stages.stored import (
    CANDIDATES,
    PORTFOLIO,
    START,
    data_of,
    read_critics,
    read_dynamics,
    read_policy,
    transitions_of,
)
from unio4_lib.stages.task import Task

RANKING_EPISODES = 20  # of a policy that is scored for the ranking alone
# What the summary says of the data and the gate; their facts say more.
DATASET_KEYS = ("id", "env_id", "transitions", "episodes", "mean_return", "normalized")
GATE_KEYS = (
    *("checks", "accepted", "estimator", "confidence", "margin", "chosen_member", "estimates"),
    *("acts", "started_from", "portfolio", "trust"),
)
Scores = dict[str, list[EpisodeStats]]  # of one policy, or of each member of the behavior
VERSIONS = ("torch", "numpy", "gymnasium", "mujoco")


def compute(work: StageWork) -> None:
    """Score behavior, offline and online policies, and sum up."""
    transitions = transitions_of(work)
    task = Task.of(transitions)
    with torch_threads(1):
        by_mean, sampled = _scores(work, task)
        ranking = _ranking(work, task)
    acts = {"offline": work.read("offline", FACTS_FILE)["acts"]}
    scores = {}
    for name, parts in by_mean.items():
        way = acts.get(name, "mean")  # what is delivered acts so, and its score is that
        delivered = sampled[name] if way == "sampled" else parts
        scores[name] = _score_facts(transitions.info, delivered) | {
            "acts": way,
            "mean_action": _score_facts(transitions.info, parts),
            "sampled": _score_facts(transitions.info, sampled[name]),
        }
    work.metrics.update({f"{name}/mean_return": values["mean_return"] for name, values in scores.items()})
    if (correlation := ranking["rank_correlation"]) is not None:
        work.metrics["ope/rank_correlation"] = correlation
    summary, facts = _summary(work, scores), {"scores": scores, "ope": ranking}
    work.write(SUMMARY_FILE, summary)
    work.finish([], facts)
    record = _record(work, summary, facts)
    work.write(STAGE_FACTS_FILE, {name: stage.facts for name, stage in record.stages.items()})
    write_report(record, work.folder / REPORT)


def _record(work: StageWork, summary: dict[str, Any], facts: dict[str, Any]) -> RunRecord:
    """All that the inputs hold for the report."""
    stages = {kind: STAGE_OF_KIND[kind] for kind in work.refs}
    return make_record(
        summary,
        work.config.model_dump(mode="json"),
        logs={name: work.read(kind, LOG_FILE) for kind, name in stages.items()},
        facts={name: work.read(kind, FACTS_FILE) for kind, name in stages.items()} | {work.stage.name: facts},
        decisions=work.read("offline", DECISIONS_FILE),
        curve=_curve(work),
    )


def _ranking(work: StageWork, task: Task) -> dict[str, Any]:
    """How well the models' estimates rank all that they judged; nothing is decided by it any more.

    Estimates are made anew: neither the gate's draws nor those of the choice.
    """
    config, folder, gate = work.config, work.input("offline"), work.read("offline", FACTS_FILE)
    device = choose_device(config)
    portfolio, tracks = (load_policy(folder / name)[0].to(device) for name in (PORTFOLIO, CANDIDATES))
    # Tracks that never passed the gate are where they began: the same policy twice would flatter.
    decisions = work.read("offline", DECISIONS_FILE)
    passed = sorted({entry["member"] for entry in decisions if entry["accepted"]})
    policies = stack_policies([portfolio, tracks.members(passed)] if passed else [portfolio])
    labels = [member["name"] for member in gate["portfolio"]] + [f"improved {track}" for track in passed]
    world = World.of(read_critics(work), read_dynamics(work), config)
    limit = task.time_limit()
    evaluator = PolicyEvaluator(data_of(work), world.judging, world.critics, config.improve, time_limit=limit)
    seed = config.evaluate.seed
    estimates = evaluator.estimate(policies, seed=seed % SEED_RANGE).mean(dim=(0, 2)).tolist()
    episodes = min(config.evaluate.episodes, RANKING_EPISODES)

    def truth(index: int) -> tuple[float, float]:
        """As estimates are: over all ways of acting."""
        work.context.preemption.check()
        stats = [
            score(task, policies, episodes, seed, member=index, sampled=way == "sampled")
            for way in evaluator.ways
        ]
        means, errors = [part.mean for part in stats], [part.stderr for part in stats]
        return sum(means) / len(means), sum(error**2 for error in errors) ** 0.5 / len(errors)

    return ope_facts(labels, estimates, truth)


def _scored_policies(work: StageWork) -> list[tuple[str, GaussianPolicy, int]]:
    """Name, policy and member of everything that gets a score of its own.

    "behavior" are the plain clones, or all where none is plain; "start" is the policy of the portfolio from
    which the delivered one came, so that choosing and improving can be told apart.
    """
    behavior, offline = read_policy(work, "behavior"), work.input("offline")
    names = work.config.behavior.member_weightings()
    plain = [member for member, name in enumerate(names) if name == UNIFORM] or list(range(len(names)))
    found = [("behavior", behavior, member) for member in plain]
    found.append(("start", load_policy(offline / START)[0].to(behavior.observation_mean.device), 0))
    return found + [(kind, read_policy(work, kind), 0) for kind in ("offline", "online") if kind in work.refs]


def _scores(work: StageWork, task: Task) -> tuple[Scores, Scores]:
    """Scores of mean actions and of sampled ones."""
    policies = _scored_policies(work)
    episodes, seed = work.config.evaluate.episodes, work.config.evaluate.seed
    scores: dict[bool, Scores] = {False: {}, True: {}}
    with work.context.reporter.stage("report", 2 * episodes * len(policies)) as update:
        for count, (sampled, (name, policy, member)) in enumerate(product(scores, policies), start=1):
            work.context.preemption.check()
            stats = score(task, policy, episodes, seed, member=member, sampled=sampled)
            scores[sampled].setdefault(name, []).append(stats)
            how = ", sampled actions" if sampled else ""
            update(episodes * count, f"{name}{how} {words.with_error(stats.mean, stats.stderr)}")
    return scores[False], scores[True]


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
    curve = [tuple(point) for point in _curve(work)]
    config = work.config
    fall = find_dip(curve, config.finetune.env_steps, config.finetune.warmup_steps)
    dataset, gate = work.read("dataset", FACTS_FILE), work.read("offline", FACTS_FILE)
    return {
        "run_id": config_digest(config)[:16],
        "unio4_version": __version__,
        "versions": {name: version(name) for name in VERSIONS},
        "config_digest": config_digest(config),
        "seed": config.seed,
        "dataset": {key: dataset[key] for key in DATASET_KEYS},
        "stages": {STAGE_OF_KIND[kind]: _stage_facts(work, kind) for kind in work.refs},
        "scores": scores,
        "gate": {key: gate[key] for key in GATE_KEYS},
        "online_curve": curve,
        "delivered_at": work.read("online", FACTS_FILE)["delivered_at"] if "online" in work.refs else None,
        "dip": None if fall is None else fall.ratio,
        "policy_digest": policy_digest(read_policy(work, final_policy(work.refs))),
    }


def _curve(work: StageWork) -> list[Any]:
    """The scores while fine-tuning; none where the gate kept the policy offline."""
    curve: list[Any] = work.read("online", CURVE_FILE) if "online" in work.refs else []
    return curve


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


def policy_digest(policy: GaussianPolicy) -> str:
    """SHA-256 over the weights: equal runs have equal digests."""
    state = policy.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
