"""A policy as one file for other software: scales and bounds inside, checked before it is kept."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unio4_lib.errors import InputError
from unio4_lib.nets.policy import GaussianPolicy

Format = Literal["onnx", "torch-export", "torchscript"]
Act = Callable[[NDArray[np.float32]], NDArray[Any]]
Write = Callable[[nn.Module, NDArray[np.float32], Path], None]

OBSERVATIONS, ACTIONS = "observations", "actions"
CHECKED_ROWS = (1, 7, 1024)  # the batch dimension is free
TOLERANCE = 1e-6  # in actions of the unit box; float32 knows a wider one no better


class Deterministic(nn.Module):
    """Observations [B, D] to the mean actions [B, A] of one policy, units of the environment."""

    def __init__(self, policy: GaussianPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor) -> Tensor:
        gaussian = self.policy.distribution(self.policy.normalize(observations))
        return self.policy.to_environment(gaussian.mean[0])


def export_policy(policy: GaussianPolicy, path: Path, form: Format, *, member: int = 0) -> float:
    """Write one member of a policy; returns the largest difference from what PyTorch does.

    The file appears only if actions for observations near and far from the data differ by no more than
    ``TOLERANCE`` times half the range of the actions (or 1, if that is larger).
    """
    if not 0 <= member < policy.spec.members:
        raise InputError(f"member is {member}; expected 0 to {policy.spec.members - 1}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; expected one that exists")
    chosen = policy.members([member]).requires_grad_(False).cpu().eval()
    write, load = FORMATS[form]
    unchecked = path.with_name(f".{path.name}.unchecked")
    try:
        # Both TorchScript and the ONNX exporter that needs no further package say that they are old.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            write(Deterministic(chosen), _example(chosen, 2), unchecked)
            difference = _largest_difference(chosen, load(unchecked))
        half_range = float((chosen.action_high - chosen.action_low).max()) / 2
        if not difference <= TOLERANCE * max(1.0, half_range):
            raise RuntimeError(
                f"the {form} file differs from the policy by {difference:.2g}, expected at most {TOLERANCE}; "
                "it was not kept"
            )
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def _example(policy: GaussianPolicy, rows: int) -> NDArray[np.float32]:
    """Observations [rows, D] around the data, up to ten standard deviations away."""
    random = np.random.default_rng(rows)
    spread = random.uniform(0.1, 10.0, (rows, 1))
    unit = random.standard_normal((rows, policy.spec.observation_dim)) * spread
    observations = policy.observation_mean.numpy() + unit * policy.observation_std.numpy()
    return observations.astype(np.float32)


def _largest_difference(policy: GaussianPolicy, act: Act) -> float:
    differences = []
    for rows in CHECKED_ROWS:
        observations = _example(policy, rows)
        differences.append(np.abs(act(observations) - policy.act(observations)).max())
    return float(max(differences))


def _write_onnx(module: nn.Module, example: NDArray[np.float32], path: Path) -> None:
    _need("onnx")
    free = {OBSERVATIONS: {0: "batch"}, ACTIONS: {0: "batch"}}
    torch.onnx.export(
        module,
        (torch.from_numpy(example),),
        str(path),
        dynamo=False,
        input_names=[OBSERVATIONS],
        output_names=[ACTIONS],
        dynamic_axes=free,
    )


def _load_onnx(path: Path) -> Act:
    _need("onnxruntime")
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda observations: session.run([ACTIONS], {OBSERVATIONS: observations})[0]


def _write_exported(module: nn.Module, example: NDArray[np.float32], path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.from_numpy(example),), dynamic_shapes=({0: batch},))
    with path.open("wb") as file:  # by name it insists on an ending of its own
        torch.export.save(program, file)


def _load_exported(path: Path) -> Act:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda observations: module(torch.from_numpy(observations)).numpy()


def _write_script(module: nn.Module, example: NDArray[np.float32], path: Path) -> None:
    torch.jit.save(torch.jit.trace(module, torch.from_numpy(example)), str(path))


def _load_script(path: Path) -> Act:
    module = torch.jit.load(str(path))
    return lambda observations: module(torch.from_numpy(observations)).numpy()


def _need(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise InputError(f"ONNX needs {package}; pip install 'unio4[export]'")


FORMATS: dict[Format, tuple[Write, Callable[[Path], Act]]] = {
    "onnx": (_write_onnx, _load_onnx),
    "torch-export": (_write_exported, _load_exported),
    "torchscript": (_write_script, _load_script),
}
