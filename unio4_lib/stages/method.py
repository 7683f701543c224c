"""The stages of Uni-O4: each takes what earlier ones made and gives one thing back.

They know nothing of files; the modules beside this one bring them what they need from artifacts.
"""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from unio4_lib.config import RunConfig
from unio4_lib.errors import InputError
from unio4_lib.evaluation import EpisodeStats, evaluate
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.offline.behavior import CloningTrainer
from unio4_lib.offline.critics import Critics, CriticTrainer
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.dynamics import DynamicsModel, DynamicsTrainer
from unio4_lib.online.finetune import FineTuning
from unio4_lib.online.ratchet import LOOK, SAMPLED
from unio4_lib.online.value import ValueFunction
from unio4_lib.progress import Reporter
from unio4_lib.report import words
from unio4_lib.sim.terminations import known_termination
from unio4_lib.stages.task import Task
from unio4_lib.training.journal import Journal
from unio4_lib.training.loop import LogEntry, Metrics, Trainer, guard, run_loop, to_numbers

# Every stage draws from a stream of its own: changing one leaves the others' numbers alone.
SEED_STRIDE = 1_000_000
SEED_RANGE = 2**62  # generators of torch take 64 bits
STREAMS = {
    "clone-behavior": 1,
    "fit-critics": 2,
    "fit-dynamics": 3,
    "improve-policy": 4,
    "finetune-online": 5,
}
# Metrics on the progress display, with the words for them.
SHOWN = {
    "clone-behavior": {"behavior/holdout_log_likelihood": "hold-out likelihood"},
    "fit-critics": {"critics/value_mean": "value", "critics/return_mean": "return"},
    "fit-dynamics": {"dynamics/holdout_squared_error": "hold-out error"},
    "extract-policies": {"behavior/holdout_log_likelihood": "hold-out likelihood"},
    "improve-policy": {"improve/estimate": "estimate"},
}


def stage_seed(config: RunConfig, stage: str) -> int:
    """Seed of one stage of a run."""
    return (config.seed * SEED_STRIDE + STREAMS[stage] * 10_000) % SEED_RANGE


def score(
    task: Task, policy: GaussianPolicy, episodes: int, seed: int, *, member: int = 0, sampled: bool = False
) -> EpisodeStats:
    """Whole episodes of one member in the simulator, with its mean action or with sampled ones."""
    noise = np.random.default_rng(seed) if sampled else None
    shape = (policy.spec.members, 1, policy.spec.action_dim)

    def act(observations: np.ndarray) -> np.ndarray:
        if noise is None:
            return policy.act(observations, member=member)
        draws = noise.standard_normal((shape[0], len(observations), shape[2]))
        return policy.act(observations, draws, member=member)

    return evaluate(act, task.sim, episodes, seed)


def train(
    trainer: Trainer,
    steps: int,
    every: int,
    name: str,
    reporter: Reporter,
    journal: Journal | None,
    carried: Any = None,
) -> list[LogEntry]:
    """Train to the end, from the beginning or from where the journal says.

    A stage of several trainings has a ``name`` for each; ``carried`` is what earlier ones left behind.
    """
    journal = journal or Journal()
    entries: list[LogEntry] = []
    start, figures = 0, ""
    resumed = journal.resumed
    if resumed is not None and resumed["training"] == name:
        trainer.load_state_dict(resumed["trainer"])
        start = resumed["step"]
        entries = [LogEntry(**entry) for entry in resumed["log"]]

    def keep(step: int) -> None:
        journal.offer(
            lambda: {
                "training": name,
                "trainer": trainer.state_dict(),
                "step": step,
                "log": [asdict(entry) for entry in entries],
                "carried": carried,
            }
        )

    with reporter.stage(name, steps, start) as update:
        for entry in run_loop(trainer, steps, name=name, evaluate_every=every, start=start, checkpoint=keep):
            entries.append(entry)
            journal.entry(entry.step, entry.values)
            figures = _figures(entry, SHOWN[name]) or figures  # of the last entry that had them
            update(entry.step, figures)
    return entries


def _figures(entry: LogEntry, shown: dict[str, str]) -> str:
    """The metrics that tell how a stage is doing, each averaged over the members."""
    parts = []
    for metric, label in shown.items():
        values = [
            value for key, value in entry.values.items() if key == metric or key.startswith(f"{metric}/")
        ]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.4g}")
    return "  ".join(parts)


def clone_behavior(
    data: OfflineData, config: RunConfig, reporter: Reporter, journal: Journal | None = None
) -> tuple[GaussianPolicy, list[LogEntry]]:
    """E behavior policies."""
    settings = config.behavior
    trainer = CloningTrainer(data, settings, seed=stage_seed(config, "clone-behavior"))
    log = train(
        trainer, settings.steps, settings.evaluate_every, "clone-behavior", reporter, journal or Journal()
    )
    return trainer.result(), log


def fit_critics(
    data: OfflineData, config: RunConfig, reporter: Reporter, journal: Journal | None = None
) -> tuple[Critics, list[LogEntry]]:
    """Q and V."""
    trainer = CriticTrainer(data, config.critics, seed=stage_seed(config, "fit-critics"))
    every = max(1, config.critics.steps // 20)
    log = train(trainer, config.critics.steps, every, "fit-critics", reporter, journal)
    return trainer.result(), log


def fit_dynamics(
    data: OfflineData, task: Task, config: RunConfig, reporter: Reporter, journal: Journal | None = None
) -> tuple[DynamicsModel, list[LogEntry]]:
    """The elite transition models."""
    settings = config.dynamics
    seed = stage_seed(config, "fit-dynamics")
    trainer = DynamicsTrainer(data, settings, seed=seed, termination=known_termination(task.env_id))
    log = train(
        trainer, settings.steps, settings.evaluate_every, "fit-dynamics", reporter, journal or Journal()
    )
    return trainer.result(), log


@dataclass(frozen=True)
class Curve:
    """Fine-tuning's evaluations: environment steps, mean return, standard error."""

    points: list[tuple[int, float, float]]
    log: list[LogEntry]  # of every round of PPO, by environment steps
    delivered_at: int  # environment steps behind the policy that is handed over
    falls: list[int]  # environment steps at which the learner went back to an earlier policy
    worst_look: float | None  # lowest evaluation, as a share of the first
    worst_running_return: float | None  # lowest running mean of sampled returns, as a share of the start's


def offline_value(data: OfflineData, critics: Critics) -> ValueFunction:
    """A copy of the critics' V in the unit of the environment's rewards, to be trained on."""
    unit = data.reward_unit
    net = copy.deepcopy(critics.v).requires_grad_(True)
    return ValueFunction.from_net(net, mean=unit * float(critics.shift), std=unit * float(critics.scale))


def finetune_online(
    policy: GaussianPolicy,
    task: Task,
    config: RunConfig,
    reporter: Reporter,
    *,
    initial_value: ValueFunction | None = None,
    journal: Journal | None = None,
) -> tuple[GaussianPolicy, Curve]:
    """The policy that online PPO delivers, and its curve; the first point is the policy as it came.

    Without ``initial_value`` V starts from nothing and is fitted to the policy before that moves.
    """
    settings, seed = config.finetune, stage_seed(config, "finetune-online")
    training = FineTuning(policy.members([0]), settings, task.sim, seed=seed, initial_value=initial_value)
    try:
        curve = _follow(training, task, config, reporter, journal or Journal())
    finally:
        training.close()
    return training.delivered, curve


def _follow(
    training: FineTuning, task: Task, config: RunConfig, reporter: Reporter, journal: Journal
) -> Curve:
    """Run fine-tuning to its end, from the beginning or from where the journal says."""
    settings = config.finetune
    points: list[tuple[int, float, float]] = []
    log: list[LogEntry] = []
    kept: list[int] = []  # environment steps of checkpoints
    if journal.resumed is not None:
        training.load_state_dict(journal.resumed["training"])
        points.extend(journal.resumed["points"])
        log.extend(LogEntry(**entry) for entry in journal.resumed["log"])
        kept.append(training.ppo.env_steps)

    def keep() -> None:
        saved = journal.offer(
            lambda: {
                "training": training.state_dict(),
                "points": list(points),
                "log": [asdict(entry) for entry in log],
            }
        )
        if saved:
            kept.append(training.ppo.env_steps)

    with reporter.stage("finetune-online", settings.env_steps, training.ppo.env_steps) as update:

        def show(steps: int, metrics: Metrics) -> None:
            last = f"return {words.with_error(*points[-1][1:])}" if points else ""
            log.append(LogEntry(steps, 0.0, to_numbers(metrics)))
            whole = (
                f"the last good checkpoint is of step {kept[-1]}" if kept else "no checkpoint was made yet"
            )
            guard("finetune-online", steps, _broken(training, log[-1].values), f"; {whole}")
            journal.entry(steps, log[-1].values)
            update(min(steps, settings.env_steps), last)
            keep()

        def measure(policy: GaussianPolicy, *, sampled: bool = False) -> EpisodeStats:
            return score(task, policy, settings.evaluate_episodes, config.evaluate.seed + 1, sampled=sampled)

        for point in training.run(measure, show):
            points.append((point.env_steps, float(point.stats.mean), float(point.stats.stderr)))
            journal.entry(point.env_steps, {"return": points[-1][1], "return_stderr": points[-1][2]})
            keep()
    ratchet = training.ratchet
    worst = ratchet.worst(LOOK), ratchet.worst(SAMPLED)
    return Curve(points, log, training.delivered_at, ratchet.falls, *worst)


def _broken(training: FineTuning, values: dict[str, float]) -> dict[str, float]:
    """What must be a number to go on: no metric may be NaN, and no weight of the policy."""
    weights = torch.nn.utils.parameters_to_vector(training.ppo.policy.parameters())
    checked = {name: value for name, value in values.items() if math.isnan(value)}
    return checked | {"policy/weights": float(weights.detach().abs().max())}


def choose_device(config: RunConfig) -> torch.device:
    """The device, chosen once for the whole run."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch sees none on this machine; expected auto or cpu")
    return torch.device(config.device)
