"""A training that has left all numbers behind says where, and what is left of it."""

from typing import Any

import pytest
import torch
from tiny_runs import ENVIRONMENT, SETTINGS

from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import TrainingDiverged
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4.trainings import finetune_online
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.progress import Reporter
from unio4_lib.stages.task import Task


class Kept:
    """Keeps every state but those after so many."""

    def __init__(self, most: int) -> None:
        self.most, self.states = most, list[Any]()

    def due(self) -> bool:
        return len(self.states) < self.most

    def save(self, state: Any) -> None:
        self.states.append(state)


@pytest.mark.parametrize(
    ("most", "says"), [(0, "no checkpoint was made yet"), (2, "the last good checkpoint is of step 128")]
)
def test_fine_tuning_that_diverges_names_metric_step_and_checkpoint(most: int, says: str) -> None:
    values = SETTINGS | {"finetune.actor_learning_rate": 1e38, "finetune.tolerated_fall": None}
    config = load_config(
        dataset="minari:x/y-v0",
        overrides=[f"{k}={v if v is not None else 'null'}" for k, v in values.items()],
    )
    policy = GaussianPolicy(PolicySpec(1, 4, 1, (8,), "tanh", "shared"), generator=torch.Generator())
    kept = Kept(most)
    with pytest.raises(TrainingDiverged) as found:
        finetune_online(policy, Task(ENVIRONMENT, {}), config, Reporter(None), journal=Journal(kept))
    text = str(found.value)
    assert text.startswith("finetune-online: policy/")
    assert " is nan at step " in text
    assert "lower the learning rate" in text
    assert text.endswith(says)
    assert len(kept.states) == most
