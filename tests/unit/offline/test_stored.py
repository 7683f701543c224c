"""Models on disk come back as they were, and reading them leaves nothing behind."""

import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.methods.unio4.stored import read_dynamics, write_dynamics
from unio4_lib.settings.model import DynamicsConfig

READS = 50


def stored(folder: Path) -> tuple[DynamicsModel, Any]:
    """Models, and a stage's work that has them as an input."""
    model = DynamicsModel(2, 11, 3, (8,), generator=torch.Generator().manual_seed(0))
    settings = SimpleNamespace(device="cpu", dynamics=DynamicsConfig(hidden=(8,)))
    work: Any = SimpleNamespace(folder=folder, config=settings, input=lambda _: folder)
    write_dynamics(work, model, SimpleNamespace(env_id="Hopper-v5"))  # type: ignore[arg-type]
    return model, work


def test_models_come_back_to_the_bit(tmp_path: Path) -> None:
    model, work = stored(tmp_path)
    found = read_dynamics(work)
    assert json.loads((tmp_path / "dynamics.json").read_text())["members"] == 2
    pairs = zip(model.state_dict().items(), found.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)


def test_reading_leaves_nothing_in_memory(tmp_path: Path) -> None:
    _, work = stored(tmp_path)
    for _ in range(3):
        read_dynamics(work)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(READS):
        read_dynamics(work)
    gc.collect()
    # Python's own lists of what it may use again fill up; two blocks for each tensor would be thirty a read.
    assert sys.getallocatedblocks() - before < 6 * READS
