"""The whole method in one process: from a dataset to a fine-tuned policy, in one folder."""

import hashlib
import json
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from unio4_lib.offline.dynamics import DynamicsModel
from unio4_lib.online.threads import torch_threads
from unio4_lib.progress import Reporter, Update
from unio4_lib.stages import method
from unio4_lib.stages.method import STAGES, Task, score
from unio4_lib.training.loop import LogEntry

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

    def in_order(self) -> dict[str, dict[str, Any]]:
        """Stages in the order of the method, whichever ended first."""
        return {name: self.stages[name] for name in STAGES if name in self.stages}


def run(config: RunConfig, output: Path, console: Console | None = None) -> dict[str, Any]:
    """Run everything and return the summary that also stands in the run's ``summary.json``."""
    with Reporter(console) as reporter, torch_threads(1):
        return _Run(config, output, reporter).all_stages()


class _Run:
    """The stages of one run in their order, with what they hand on."""

    def __init__(self, config: RunConfig, output: Path, reporter: Reporter) -> None:
        self.config, self.output, self.reporter, self.timer = config, output, reporter, Timer()

    def all_stages(self) -> dict[str, Any]:
        with self.timer.stage("prepare-dataset"):
            self._prepare()
        self.folder = RunFolder(self.output, self.config)
        self._learn_from_data()
        with self.timer.stage("improve-policy"):
            self.improvement = method.improve_policy(
                self.data,
                self.behavior,
                self.critics,
                self.model,
                self.config,
                self.reporter,
                time_limit=self.time_limit,
            )
        chosen = self.improvement.chosen
        self.offline = self.improvement.policies.members([chosen])
        self.folder.policy("behavior", self.behavior, self.task)
        self.folder.policy("offline", self.offline, self.task, member=chosen)
        with self.timer.stage("finetune-online"):
            self.online, self.curve = method.finetune_online(
                self.offline, self.task, self.config, self.reporter
            )
        self.folder.policy("online", self.online, self.task)
        with self.timer.stage("evaluate"):
            scores = self._scores()
        self._write_logs()
        summary = self._summary(scores)
        self.folder.finish(summary)
        return summary

    def _prepare(self) -> None:
        self.transitions = _load(self.config, self.reporter)
        self.task = Task.of(self.transitions)
        sim = self.task.sim(1)  # fails now, not after an hour, where the environment is not to be had
        self.time_limit = sim.max_episode_steps
        sim.close()
        self.data = OfflineData.build(
            self.transitions,
            self.config.prepare,
            discount=self.config.critics.discount,
            device=method.choose_device(self.config),
        )

    def _learn_from_data(self) -> None:
        """Cloning and critics beside the models: they need nothing of each other.

        Networks of this size are fastest on one thread each, so two branches use two cores. Each stage
        has generators of its own: running side by side changes no number.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            models = pool.submit(self._fit_dynamics)
            try:
                self._clone_and_fit_critics()
            finally:
                self.model, self.model_log = models.result()

    def _fit_dynamics(self) -> tuple[DynamicsModel, list[LogEntry]]:
        with self.timer.stage("fit-dynamics"):
            return method.fit_dynamics(self.data, self.task, self.config, self.reporter)

    def _clone_and_fit_critics(self) -> None:
        with self.timer.stage("clone-behavior"):
            self.behavior, self.clone_log = method.clone_behavior(self.data, self.config, self.reporter)
        with self.timer.stage("fit-critics"):
            self.critics, self.critic_log = method.fit_critics(self.data, self.config, self.reporter)

    def _scores(self) -> dict[str, list[EpisodeStats]]:
        """Scores in the simulator, after all choices are made; the behavior's is that of all members."""
        episodes, seed = self.config.evaluate.episodes, self.config.evaluate.seed
        members = range(self.behavior.spec.members)
        return {
            "behavior": [score(self.task, self.behavior, episodes, seed, member=i) for i in members],
            "offline": [score(self.task, self.offline, episodes, seed)],
            "online": [score(self.task, self.online, episodes, seed)],
        }

    def _write_logs(self) -> None:
        logs = {
            "clone-behavior": self.clone_log,
            "fit-critics": self.critic_log,
            "fit-dynamics": self.model_log,
            "improve-policy": self.improvement.log,
        }
        entries = {stage: [asdict(entry) for entry in log] for stage, log in logs.items()}
        self.folder.write("metrics.json", json.dumps(entries))
        decisions = [asdict(entry) for entry in self.improvement.decisions]
        self.folder.write("decisions.json", json.dumps(decisions))

    def _summary(self, scores: dict[str, list[EpisodeStats]]) -> dict[str, Any]:
        settings, decisions = self.config.improve, self.improvement.decisions
        return {
            "run_id": self.folder.run_id,
            "unio4_version": __version__,
            "config_digest": config_digest(self.config),
            "seed": self.config.seed,
            "dataset": _dataset_facts(self.config, self.transitions),
            "stages": self.timer.in_order(),
            "scores": {name: _score_facts(self.transitions, stats) for name, stats in scores.items()},
            "gate": {
                "checks": len(decisions),
                "accepted": sum(entry.accepted for entry in decisions),
                "estimator": settings.estimator,
                "rule": settings.rule,
                "chosen_member": self.improvement.chosen,
                "estimates": self.improvement.estimates,
            },
            "online_curve": self.curve.points,
            "dip": _dip(self.curve.points, self.config.finetune.env_steps),
            "policy_digest": policy_digest(self.online),
        }


def _load(config: RunConfig, reporter: Reporter) -> Transitions:
    """The dataset; where it has to be collected first, that shows its progress."""

    def show(phase: str, done: int, total: int, mean_return: float) -> None:
        if phase not in updates:
            updates[phase] = stack.enter_context(reporter.stage(f"collect: {phase}", total))
        updates[phase](done, f"return {mean_return:.0f}")

    updates: dict[str, Update] = {}
    with ExitStack() as stack:
        transitions = load_transitions(
            config.dataset, clip_actions=config.prepare.clip_actions, progress=show
        )
    reporter.say(
        f"dataset: {transitions.num_transitions:,} transitions in {transitions.num_episodes:,} episodes of "
        f"{transitions.info.env_id}"
    )
    return transitions


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
