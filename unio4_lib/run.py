"""The whole method in one process: from a dataset to a fine-tuned policy, in one folder."""

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from unio4_lib import __version__
from unio4_lib.config import RunConfig, config_digest
from unio4_lib.data.sources import load_transitions
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.evaluation import EpisodeStats, normalized_score, reference_scores
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.dynamics import DynamicsModel
from unio4_lib.online.threads import torch_threads
from unio4_lib.progress import Reporter, Stopped, Update
from unio4_lib.run_folder import POLICIES, RunFolder, Timer
from unio4_lib.sim.base import BatchSim
from unio4_lib.stages import method
from unio4_lib.stages.method import Task, score
from unio4_lib.training.loop import LogEntry

DIP_SHARE = 0.1  # the dip is looked for in this first share of online steps
BOUNDS_TOLERANCE = 1e-5  # bounds come as float32 from one side


def run(config: RunConfig, output: Path, console: Console | None = None) -> dict[str, Any]:
    """Run everything and return the summary that also stands in the run's ``summary.json``."""
    with Reporter(console) as reporter, torch_threads(1):
        return _Run(config, output, reporter).all_stages()


class _Run:
    """The stages of one run in their order, with what they hand on."""

    def __init__(self, config: RunConfig, output: Path, reporter: Reporter) -> None:
        self.config, self.output, self.reporter, self.timer = config, output, reporter, Timer()

    def all_stages(self) -> dict[str, Any]:
        """Every stage; the folder comes first, so that a place that cannot be written to is found at once."""
        self.folder = RunFolder(self.output, self.config)
        try:
            summary = self._stages()
            self.folder.finish(summary)
            return summary
        except BaseException as error:
            self.folder.fail(error, list(self.timer.in_order()))
            raise

    def _stages(self) -> dict[str, Any]:
        with self.timer.stage("prepare-dataset"):
            self._prepare()
        self._learn_from_data()
        self.folder.policy("behavior", self.behavior, self.task)
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
        self.folder.policy("offline", self.offline, self.task, member=chosen)
        with self.timer.stage("finetune-online"):
            refit = self.config.finetune.critic == "refit"
            value = None if refit else method.offline_value(self.data, self.critics)
            self.online, self.curve = method.finetune_online(
                self.offline, self.task, self.config, self.reporter, initial_value=value
            )
        self.folder.policy("online", self.online, self.task)
        with self.timer.stage("evaluate"):
            scores = self._scores()
        self._write_logs()
        return self._summary(scores)

    def _prepare(self) -> None:
        self.transitions = _load(self.config, self.reporter)
        self.task = Task.of(self.transitions)
        try:
            self.time_limit = _check_environment(self.task, self.transitions, self.reporter)
            _check_holdout(self.transitions, self.config)
        except InputError as error:
            raise InputError(f"dataset {self.config.dataset}: {error}") from error
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
        # A failure on either side stops the other at its next report, before the pool is waited for.
        with ThreadPoolExecutor(max_workers=1) as pool, self.reporter.together():
            models = pool.submit(self._fit_dynamics)
            with suppress(Stopped):  # then the models failed, and their result says why
                self._clone_and_fit_critics()
            self.model, self.model_log = models.result()

    def _fit_dynamics(self) -> tuple[DynamicsModel, list[LogEntry]]:
        with self.reporter.together(), self.timer.stage("fit-dynamics"):
            return method.fit_dynamics(self.data, self.task, self.config, self.reporter)

    def _clone_and_fit_critics(self) -> None:
        with self.timer.stage("clone-behavior"):
            self.behavior, self.clone_log = method.clone_behavior(self.data, self.config, self.reporter)
        with self.timer.stage("fit-critics"):
            self.critics, self.critic_log = method.fit_critics(self.data, self.config, self.reporter)

    def _scores(self) -> dict[str, list[EpisodeStats]]:
        """Scores in the simulator, after all choices are made; the behavior's is that of all members."""
        members = range(self.behavior.spec.members)
        policies = [("behavior", self.behavior, member) for member in members]
        policies += [("offline", self.offline, 0), ("online", self.online, 0)]
        episodes, seed = self.config.evaluate.episodes, self.config.evaluate.seed
        scores: dict[str, list[EpisodeStats]] = {}
        with self.reporter.stage("evaluate", episodes * len(policies)) as update:
            for count, (name, policy, member) in enumerate(policies, start=1):
                stats = score(self.task, policy, episodes, seed, member=member)
                scores.setdefault(name, []).append(stats)
                update(episodes * count, f"{name} {stats.mean:.0f} ± {stats.stderr:.0f}")
        return scores

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
            "delivered_at": self.curve.delivered_at,
            "dip": _dip(self.curve.points, self.config.finetune.env_steps),
            "policy_digest": policy_digest(self.online),
        }


def _load(config: RunConfig, reporter: Reporter) -> Transitions:
    """The dataset; where it has to be collected first, that shows its progress."""

    def show(phase: str, done: int, total: int, mean_return: float) -> None:
        if phase not in updates:
            updates[phase] = stack.enter_context(reporter.stage(f"collect: {phase}", total))
        # Before the first episodes end there is no return yet.
        updates[phase](min(done, total), f"return {mean_return:.0f}" if math.isfinite(mean_return) else "")

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


def _check_environment(task: Task, transitions: Transitions, reporter: Reporter) -> int | None:
    """Steps of an episode, once the environment is there and fits the data: now, not after an hour."""
    sim = task.sim(1)
    try:
        _check_sizes(sim, "the dataset", transitions.observation_dim, transitions.action_dim)
        low, high = np.asarray(transitions.info.action_low), np.asarray(transitions.info.action_high)
        if (sim.action_low - low).max() > BOUNDS_TOLERANCE or (
            high - sim.action_high
        ).max() > BOUNDS_TOLERANCE:
            raise InputError(
                f"action bounds {_bounds(low, high)}, but those of environment {task.env_id} are "
                f"{_bounds(sim.action_low, sim.action_high)}; they must lie within"
            )
        if (low - sim.action_low).max() > BOUNDS_TOLERANCE or (
            sim.action_high - high
        ).max() > BOUNDS_TOLERANCE:
            reporter.say(
                f"note: policies stay in the dataset's action bounds {_bounds(low, high)}; "
                f"{task.env_id} allows {_bounds(sim.action_low, sim.action_high)}"
            )
        return sim.max_episode_steps
    finally:
        sim.close()


def _check_sizes(sim: BatchSim, name: str, observation_dim: int, action_dim: int) -> None:
    """Observations and actions are as wide as those of the environment."""
    for kind, found, expected in (
        ("observation", observation_dim, sim.observation_dim),
        ("action", action_dim, sim.action_dim),
    ):
        if found != expected:
            raise InputError(
                f"{name} has {kind}s of size {found}, but environment {sim.env_id} has {expected}; "
                "they must be equal (another environment, or other env_kwargs?)"
            )


def _bounds(low: np.ndarray, high: np.ndarray) -> str:
    return f"[{low.min():g}, {high.max():g}]"


def _check_holdout(transitions: Transitions, config: RunConfig) -> None:
    """Something is left to train on and something to hold out, of a single episode too."""
    rows = transitions.num_transitions
    for name in ("behavior", "dynamics"):
        share = getattr(config, name).holdout_fraction
        if transitions.num_episodes == 1 and round((1 - share) * rows) in (0, rows):
            raise InputError(
                f"{rows} rows of one episode cannot be split by {name}.holdout_fraction={share:g}; "
                "expected more rows, or at least two episodes"
            )


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
        if (folder / POLICIES / name).is_dir():
            place = folder / POLICIES / name
            break
    policy, facts = load_policy(place)
    if "env_id" not in facts:
        raise InputError(f"{place}: the policy does not say its environment; expected env_id in policy.json")
    task = Task(facts["env_id"], facts.get("env_kwargs", {}))
    try:
        sim = task.sim(1)
        _check_sizes(sim, "the policy", policy.spec.observation_dim, policy.spec.action_dim)
        sim.close()
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    Reporter(console).say(f"{place}: {episodes} episodes of {task.env_id}")
    with torch_threads(1):  # as in the run: equal seeds give equal scores
        stats = score(task, policy, episodes, seed, sampled=sampled)
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
