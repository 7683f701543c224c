"""The whole method in one process: from a dataset to a fine-tuned policy, in one folder."""

import hashlib
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib import __version__
from unio4_lib.config import RunConfig, config_digest
from unio4_lib.config_docs import config_yaml
from unio4_lib.data.sources import load_transitions
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.evaluation import EpisodeStats
from unio4_lib.nets.files import load_policy, save_policy
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.offline.data import OfflineData
from unio4_lib.progress import Reporter
from unio4_lib.stages import method
from unio4_lib.stages.method import Task, score

DIP_SHARE = 0.1  # the dip is looked for in this first share of online steps


class RunFolder:
    """The folder of one run; what is written appears whole or not at all."""

    def __init__(self, output: Path, config: RunConfig) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        digest = config_digest(config)[:8]
        self.run_id = f"{stamp}-{digest}"
        self.path = output / self.run_id
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:  # two runs of one config in one second
            self.run_id = f"{self.run_id}-{os.getpid()}"
            self.path = output / self.run_id
            self.path.mkdir(parents=True)
        except (PermissionError, NotADirectoryError) as error:
            raise InputError(
                f"{output}: cannot be written ({error.strerror}); choose another --output"
            ) from error
        self.write("config.yaml", config_yaml(config))

    def write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.new"
        temporary.write_text(text)
        temporary.replace(self.path / name)

    def policy(self, name: str, policy: GaussianPolicy, task: Task, **facts: Any) -> None:
        save_policy(
            policy, self.path / "policies" / name, env_id=task.env_id, env_kwargs=task.env_kwargs, **facts
        )

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and let ``latest`` point here."""
        self.write("summary.json", json.dumps(summary, indent=2) + "\n")
        link = self.path.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.run_id)
        link.replace(self.path.parent / "latest")


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


def run(config: RunConfig, output: Path, console: Console | None = None) -> dict[str, Any]:
    """Run everything and return the summary that also stands in the run's ``summary.json``."""
    reporter, timer = Reporter(console), Timer()
    with timer.stage("prepare-dataset"):
        transitions = _load(config, reporter)
        task = Task.of(transitions)
        device = method.choose_device(config)
        data = OfflineData.build(transitions, config.prepare, discount=config.critics.discount, device=device)
        with_time_limit = task.sim(1)
        time_limit = with_time_limit.max_episode_steps
        with_time_limit.close()
    folder = RunFolder(output, config)
    with timer.stage("clone-behavior"):
        behavior, clone_log = method.clone_behavior(data, config, reporter)
    with timer.stage("fit-critics"):
        critics, critic_log = method.fit_critics(data, config, reporter)
    with timer.stage("fit-dynamics"):
        model, model_log = method.fit_dynamics(data, task, config, reporter)
    with timer.stage("improve-policy"):
        improvement = method.improve_policy(
            data, behavior, critics, model, config, reporter, time_limit=time_limit
        )
    offline = improvement.policies.members([improvement.chosen])
    folder.policy("behavior", behavior, task)
    folder.policy("offline", offline, task, member=improvement.chosen)
    with timer.stage("finetune-online"):
        online, curve = method.finetune_online(offline, task, config, reporter)
    folder.policy("online", online, task)
    with timer.stage("evaluate"):
        stats = _evaluate_all(config, task, behavior, offline, online)
    logs = {"clone-behavior": clone_log, "fit-critics": critic_log, "fit-dynamics": model_log}
    logs["improve-policy"] = improvement.log
    folder.write("metrics.json", json.dumps({k: [asdict(e) for e in v] for k, v in logs.items()}))
    folder.write("decisions.json", json.dumps([asdict(entry) for entry in improvement.decisions]))
    summary = {
        "run_id": folder.run_id,
        "unio4_version": __version__,
        "config_digest": config_digest(config),
        "seed": config.seed,
        "dataset": _dataset_facts(config, transitions),
        "stages": timer.stages,
        "scores": {name: _score_facts(transitions, values) for name, values in stats.items()},
        "gate": {
            "checks": len(improvement.decisions),
            "accepted": sum(entry.accepted for entry in improvement.decisions),
            "estimator": config.improve.estimator,
            "rule": config.improve.rule,
            "chosen_member": improvement.chosen,
        },
        "online_curve": curve.points,
        "dip": _dip(curve.points, config.finetune.env_steps),
    }
    folder.finish(summary)
    return summary


def _load(config: RunConfig, reporter: Reporter) -> Transitions:
    with reporter.stage("prepare-dataset", 1) as update:
        transitions = load_transitions(config.dataset)
        update(1, f"{transitions.num_transitions:,} transitions")
    return transitions


def _evaluate_all(
    config: RunConfig, task: Task, behavior: GaussianPolicy, offline: GaussianPolicy, online: GaussianPolicy
) -> dict[str, list[EpisodeStats]]:
    """Scores in the simulator, after all choices are made; the behavior's is that of all members."""
    episodes, seed = config.evaluate.episodes, config.evaluate.seed
    members = range(behavior.spec.members)
    return {
        "behavior": [score(task, behavior, episodes, seed, member=member) for member in members],
        "offline": [score(task, offline, episodes, seed)],
        "online": [score(task, online, episodes, seed)],
    }


def _score_facts(transitions: Transitions, stats: list[EpisodeStats]) -> dict[str, Any]:
    means = [float(part.mean) for part in stats]
    errors = [float(part.stderr) for part in stats]
    mean = sum(means) / len(means)
    stderr = sum(error**2 for error in errors) ** 0.5 / len(errors)
    facts: dict[str, Any] = {
        "mean_return": mean,
        "stderr": stderr,
        "normalized": transitions.info.normalized(mean),
        "episodes": sum(len(part.returns) for part in stats),
    }
    if len(means) > 1:
        facts["members"] = means
    return facts


def _dataset_facts(config: RunConfig, transitions: Transitions) -> dict[str, Any]:
    mean = float(transitions.episode_returns().mean())
    return {
        "id": config.dataset,
        "env_id": transitions.info.env_id,
        "transitions": transitions.num_transitions,
        "episodes": transitions.num_episodes,
        "mean_return": mean,
        "normalized": transitions.info.normalized(mean),
    }


def _dip(points: list[tuple[int, float, float]], total: int) -> float | None:
    """Worst score in the first tenth of the online steps over the offline one; None without a scale."""
    before = points[0][1]
    early = [value for steps, value, _ in points[1:] if steps <= max(DIP_SHARE * total, points[1][0])]
    return min(early) / before if early and before > 0 else None


def evaluate_policy(
    folder: Path, *, episodes: int, seed: int, sampled: bool, console: Console | None = None
) -> dict[str, Any]:
    """Score the policy of a folder; of a run's folder, the last policy that it made."""
    place = folder
    for name in ("online", "offline"):
        if (folder / "policies" / name).is_dir():
            place = folder / "policies" / name
            break
    policy, facts = load_policy(place)
    if "env_id" not in facts:
        raise InputError(f"{place}: the policy does not say its environment; expected env_id in policy.json")
    task = Task(facts["env_id"], facts.get("env_kwargs", {}))
    Reporter(console).say(f"{place}: {episodes} episodes of {task.env_id}")
    stats = score(task, policy, episodes, seed, sampled=sampled)
    from unio4_lib.evaluation import normalized_score, reference_scores

    references = reference_scores(task.env_id)
    mean = float(stats.mean)
    return {
        "policy": str(place),
        "env_id": task.env_id,
        "mean_return": mean,
        "stderr": float(stats.stderr),
        "interval": list(stats.bootstrap_interval()),
        "normalized": None if references is None else normalized_score(mean, *references),
        "episodes": len(stats.returns),
        "sampled": sampled,
    }


def policy_digest(policy: GaussianPolicy) -> str:
    """SHA-256 over the weights: equal runs have equal digests."""
    state = policy.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
