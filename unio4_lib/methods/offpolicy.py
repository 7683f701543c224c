"""The steps that all off-policy methods share: train a learner on the data, then go on with it online.

A method of this kind is a learner, its settings, and one ``OffPolicy`` that joins them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unio4_lib.learning.learner import Learner
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining, OnlineTraining
from unio4_lib.learning.state_file import decode_state, encode_state
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.method import Method
from unio4_lib.methods.reporting import Findings, delivered, finish, score_facts
from unio4_lib.report.facts import OfflineFacts
from unio4_lib.report.learning_section import learning_section
from unio4_lib.report.online_section import online_section
from unio4_lib.settings.model import RunConfig
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig, OffPolicyTuneConfig
from unio4_lib.stages.online import finish_online, follow
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import DATA_KEYS, PREPARE, Layers, Step
from unio4_lib.stages.stored import data_of, transitions_of, write_policy
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import stage_seed, train

LEARNER = "learner.state"  # in the offline artifact: all that its learner goes on with
OFFLINE_STREAM, ONLINE_STREAM = 11, 12  # of random numbers


class OffPolicyRun(RunConfig):
    """A run of an off-policy method; each adds a section of its own name."""

    train: OffPolicyTrainConfig = OffPolicyTrainConfig()
    finetune: OffPolicyTuneConfig = OffPolicyTuneConfig()

    @property
    def discount(self) -> float:
        return self.train.discount

    @property
    def own(self) -> Any:
        """The section of the method's own name: the settings of its learner."""
        return getattr(self, self.method)


MakeLearner = Callable[[OfflineData, Any, torch.Generator], Learner]


@dataclass(frozen=True)
class OffPolicy:
    """A method from its learner; ``module`` is where the method finds this object as ``ROOM``."""

    name: str
    about: str
    settings: type[OffPolicyRun]
    make: MakeLearner  # from the data, the settings and a generator
    module: str
    shown: dict[str, str] = field(default_factory=dict)  # metrics on the display, with words for them
    composite: bool = False  # whether its policy acts by more than one network

    def method(self) -> Method:
        """What the rest of the house knows of it."""
        learned = ("seed", "device", *DATA_KEYS, "train", self.name)
        steps = (
            PREPARE,
            Step(
                "train-offline",
                "offline",
                ("dataset",),
                learned,
                self.module,
                "Trains policy and values on the dataset. Values should settle near the returns of the data.",
                phase="offline",
                amount=("train.steps", "updates"),
                layers=lambda config: self.layers(config, config.train.steps),
                function="ROOM.train_offline",
            ),
            Step(
                "finetune-online",
                "online",
                ("dataset", "offline"),
                (*learned, "finetune", "evaluate.seed"),
                self.module,
                "Fine-tunes the policy in the environment. `return` is its learning curve over "
                "environment steps.",
                phase="online",
                amount=("finetune.env_steps", "env steps"),
                layers=lambda config: self.layers(config, self.online_updates(config)),
                function="ROOM.finetune_online",
            ),
            Step(
                "report",
                "report",
                ("dataset", "offline", "online"),
                ("method", "dataset", "prepare", *learned, "finetune", "evaluate"),
                self.module,
                "Scores all policies in the environment and writes the report (see Artifacts).",
                optional=("online",),
                function="ROOM.report",
            ),
        )
        panels = (
            ("learning", "Learning", learning_section),
            ("online", "Online", online_section),
        )
        presets = Path(__file__).parent / "presets"
        return Method(
            self.name,
            self.about,
            self.settings,
            (presets, presets / self.name),  # what all share, and what only its paper says
            "offpolicy",
            steps,
            panels,
            composite=self.composite,
        )

    def layers(self, config: OffPolicyRun, updates: int) -> list[Layers]:
        """A policy and its critics; some methods have more than these."""
        own, rows = config.own, config.train.batch_size
        critics = getattr(own, "critics", 2)
        return [
            Layers(f"{self.name}.hidden, critics", critics, own.hidden, rows, updates),
            Layers(f"{self.name}.hidden", 1, own.hidden, rows, updates),
        ]

    def online_updates(self, config: OffPolicyRun) -> int:
        said = config.finetune
        return int((said.env_steps - said.warmup_steps) * said.updates_per_step)

    def train_offline(self, work: StageWork[OffPolicyRun]) -> None:
        """Updates on the data alone."""
        config = work.config
        with torch_threads(1):
            data = data_of(work)
            seed = stage_seed(config, OFFLINE_STREAM)
            learner = self._learner(data, config, seed)
            training = OfflineTraining(learner, data, config.train, seed=seed + 1)
            every = config.train.evaluate_every
            name = work.stage.name
            log = train(
                training,
                config.train.steps,
                every,
                name,
                work.context.reporter,
                work.journal,
                shown=self.shown,
            )
        write_policy(work, learner.policy, Task.of(transitions_of(work)))
        (work.folder / LEARNER).write_bytes(encode_state(learner.state_dict()))
        work.metrics.update({key: value for key, value in log[-1].values.items() if "/" in key})
        work.finish(log, OfflineFacts(acts="mean"))

    def finetune_online(self, work: StageWork[OffPolicyRun]) -> None:
        """Updates on old and new rows, while the policy acts."""
        config, task = work.config, Task.of(transitions_of(work))
        with torch_threads(1):
            data = data_of(work)
            seed = stage_seed(config, ONLINE_STREAM)
            learner = self._learner(data, config, seed)
            stored = (work.input("offline") / LEARNER).read_bytes()
            learner.load_state_dict(decode_state(stored, f"offline/{LEARNER}"))
            training = OnlineTraining(
                learner, data, config.finetune, task.sim, batch_size=config.train.batch_size, seed=seed
            )
            score_with = (config.evaluate.seed + 1, config.finetune.evaluate_episodes)
            total, reporter = config.finetune.env_steps, work.context.reporter
            curve = follow(training, task, total, score_with, reporter, work.journal)
        finish_online(work, training.delivered, task, curve)

    def report(self, work: StageWork[OffPolicyRun]) -> None:
        """Scores of the offline and the online policy."""
        transitions = transitions_of(work)
        with torch_threads(1):
            scores = score_facts(work, delivered(work), transitions.info, Task.of(transitions))
        finish(work, self.method(), scores, Findings())

    def _learner(self, data: OfflineData, config: OffPolicyRun, seed: int) -> Learner:
        return self.make(data, config, torch.Generator().manual_seed(seed))


def look_at_values(values: Tensor, returns: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    """Figures that all learners of values show."""
    pair = torch.stack([values, returns])
    return {
        "critics/value_mean": values.mean(),
        "critics/return_mean": returns.mean(),
        "critics/value_return_correlation": torch.corrcoef(pair)[0, 1].nan_to_num(),
        "critics/advantage_std": advantages.std(),
    }
