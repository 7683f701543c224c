"""Networks in artifacts: the critics and the transition models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load, save_file
from torch import nn

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.critics import Critics
from unio4_lib.settings.model import CriticsConfig
from unio4_lib.sim.terminations import known_termination
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.task import Task

Module = TypeVar("Module", bound=nn.Module)

# Folders of policies: as accepted on all tracks, all that were judged, what the chosen track began from.
CANDIDATES, PORTFOLIO, START = "candidates", "portfolio", "start"
CRITICS, DYNAMICS = "critics", "dynamics"  # names of a safetensors and a JSON file


def write_critics(work: StageWork[Any], critics: Critics, observation_dim: int, action_dim: int) -> None:
    """Q, its slow copy and V with the settings that shape them."""
    shape = {
        "observation_dim": observation_dim,
        "action_dim": action_dim,
        "config": work.config.critics.model_dump(mode="json"),
    }
    _write(work, CRITICS, critics, shape)


def read_critics(work: StageWork[Any]) -> Critics:
    """The critics of an input, frozen, on the device."""

    def build(shape: dict[str, Any]) -> Critics:
        config = CriticsConfig.model_validate(shape["config"])
        return Critics(shape["observation_dim"], shape["action_dim"], config, generator=torch.Generator())

    return _read(work, CRITICS, build)


def write_dynamics(work: StageWork[Any], model: DynamicsModel, task: Task) -> None:
    """The elite models; the rule of termination is found again by the environment's name."""
    shape = {
        "members": model.members,
        "observation_dim": model.observation_dim,
        "action_dim": model.action_dim,
        "hidden": list(model.hidden),
        "env_id": task.env_id,
    }
    _write(work, DYNAMICS, model, shape)


def read_dynamics(work: StageWork[Any]) -> DynamicsModel:
    """The models of an input, frozen, on the device."""

    def build(shape: dict[str, Any]) -> DynamicsModel:
        env_id = shape.pop("env_id")
        hidden = tuple(shape.pop("hidden"))
        return DynamicsModel(**shape, hidden=hidden, termination=known_termination(env_id))

    return _read(work, DYNAMICS, build)


def _write(work: StageWork[Any], name: str, module: nn.Module, shape: dict[str, Any]) -> None:
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    save_file(tensors, work.folder / f"{name}.safetensors")
    (work.folder / f"{name}.json").write_text(json.dumps(shape, indent=1) + "\n")


def _read(work: StageWork[Any], name: str, build: Callable[[dict[str, Any]], Module]) -> Module:
    folder: Path = work.input(name)
    module = build(json.loads((folder / f"{name}.json").read_bytes()))
    # Not by the name of the file: safetensors 0.8.0 then keeps some 57 bytes of each tensor for ever.
    module.load_state_dict(load((folder / f"{name}.safetensors").read_bytes()))
    return module.to(choose_device(work.config)).requires_grad_(False)
