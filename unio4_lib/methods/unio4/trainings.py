"""The trainings of Uni-O4: each takes what earlier ones made and gives one thing back.

They know nothing of files; the modules beside this one bring them what they need from artifacts.
"""

import copy

from unio4_lib.judging.dynamics import DynamicsModel, DynamicsTrainer
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import Critics, CriticTrainer
from unio4_lib.learning.finetune import FineTuning
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import LogEntry
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.value import ValueFunction
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.progress import Reporter
from unio4_lib.sim.terminations import known_termination
from unio4_lib.stages.online import Curve, follow
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import stage_seed, train

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
    "fitted-q": {"fqe/value": "value"},
    "improve-policy": {"improve/estimate": "estimate"},
}


def stream_seed(config: UniO4Config, training: str) -> int:
    """Seed of a training."""
    return stage_seed(config, STREAMS[training])


def clone_behavior(
    data: OfflineData, config: UniO4Config, reporter: Reporter, journal: Journal | None = None
) -> tuple[GaussianPolicy, list[LogEntry]]:
    """E behavior policies."""
    settings = config.behavior
    trainer = CloningTrainer(data, settings, seed=stream_seed(config, "clone-behavior"))
    log = train(
        trainer,
        settings.steps,
        settings.evaluate_every,
        "clone-behavior",
        reporter,
        journal,
        shown=SHOWN["clone-behavior"],
    )
    return trainer.result(), log


def fit_critics(
    data: OfflineData, config: UniO4Config, reporter: Reporter, journal: Journal | None = None
) -> tuple[Critics, list[LogEntry]]:
    """Q and V."""
    trainer = CriticTrainer(data, config.critics, seed=stream_seed(config, "fit-critics"))
    every = max(1, config.critics.steps // 20)
    log = train(
        trainer, config.critics.steps, every, "fit-critics", reporter, journal, shown=SHOWN["fit-critics"]
    )
    return trainer.result(), log


def fit_dynamics(
    data: OfflineData, task: Task, config: UniO4Config, reporter: Reporter, journal: Journal | None = None
) -> tuple[DynamicsModel, list[LogEntry]]:
    """The elite transition models."""
    settings = config.dynamics
    seed = stream_seed(config, "fit-dynamics")
    trainer = DynamicsTrainer(data, settings, seed=seed, termination=known_termination(task.env_id))
    log = train(
        trainer,
        settings.steps,
        settings.evaluate_every,
        "fit-dynamics",
        reporter,
        journal,
        shown=SHOWN["fit-dynamics"],
    )
    return trainer.result(), log


def offline_value(data: OfflineData, critics: Critics) -> ValueFunction:
    """A copy of the critics' V in the unit of the environment's rewards, to be trained on."""
    unit = data.reward_unit
    net = copy.deepcopy(critics.v).requires_grad_(True)
    return ValueFunction.from_net(net, mean=unit * float(critics.shift), std=unit * float(critics.scale))


def finetune_online(
    policy: GaussianPolicy,
    task: Task,
    config: UniO4Config,
    reporter: Reporter,
    *,
    initial_value: ValueFunction | None = None,
    journal: Journal | None = None,
) -> tuple[FineTuning, Curve]:
    """Online PPO at its end, and its curve; the first point is the policy as it came.

    Without ``initial_value`` V starts from nothing and is fitted to the policy before that moves.
    """
    settings, seed = config.finetune, stream_seed(config, "finetune-online")
    training = FineTuning(policy.members([0]), settings, task.sim, seed=seed, initial_value=initial_value)
    score_with = (config.evaluate.seed + 1, settings.evaluate_episodes)
    curve = follow(training, task, settings.env_steps, score_with, reporter, journal or Journal())
    return training, curve
