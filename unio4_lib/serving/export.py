"""A policy as one file for other software: scales and bounds inside, checked before it is kept."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unio4_lib import __version__
from unio4_lib.errors import InputError
from unio4_lib.files import output_file
from unio4_lib.nets.policy import Policy

Format = Literal["onnx", "torch-export", "torchscript"]
Act = Callable[[NDArray[np.float32]], NDArray[Any]]
Write = Callable[[nn.Module, NDArray[np.float32], Path], None]

OBSERVATIONS, ACTIONS = "observations", "actions"
CHECKED_ROWS = (1, 7, 1024)  # the batch dimension is free
# Largest difference allowed, by the spread of observations in standard deviations of the data. It counts in
# units of half the action range, or of 1 if that is larger. Far from the data sums are larger, and
# PyTorch's own rounding with them (measured: 6e-7 at 1, 4e-6 at 10).
TOLERANCES = {1.0: 1e-6, 10.0: 1e-5}


class Deterministic(nn.Module):
    """Observations [B, D] to the mean actions [B, A] of one policy, units of the environment."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor) -> Tensor:
        distribution = self.policy.distribution(self.policy.normalize(observations))
        return self.policy.to_environment(distribution.mean[0])


def export_policy(
    policy: Policy, path: Path, form: Format, *, member: int = 0, facts: Mapping[str, Any] | None = None
) -> float:
    """Write one member of a policy; returns its largest difference from PyTorch near the data.

    The file appears only if actions for observations near the data and far from it differ by no more than
    ``TOLERANCES`` say. ``facts`` are those of policy.json, which ONNX can tell whoever deploys it.
    """
    if not 0 <= member < policy.spec.members:
        raise InputError(f"member is {member}; expected 0 to {policy.spec.members - 1}")
    path = output_file(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; expected one that exists")
    chosen = policy.members([member]).requires_grad_(False).cpu().eval()
    write, load = FORMATS[form]
    unchecked = path.with_name(f".{path.name}.unchecked")
    try:
        # Both TorchScript and the ONNX exporter that needs no further package say that they are old.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            # Of lengths, which are those of the policy's layers and no batch's.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            write(Deterministic(chosen), _example(chosen, 2), unchecked)
            if form == "onnx":
                _describe_onnx(unchecked, describe(chosen, member, facts or {}))
            difference = _check(chosen, load(unchecked), form)
        unchecked.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def describe(policy: Policy, member: int, facts: Mapping[str, Any]) -> dict[str, str]:
    """What a deployer has to know beside the shapes; the same for the same policy."""
    known = {name: facts[name] for name in ("env_id", "env_kwargs", "policy_sha256") if name in facts}
    values = {
        "producer": "unio4",
        "producer_version": __version__,
        **known,
        "member": member,
        "observations": "raw, as the environment gives them; normalization is inside",
        "actions": "mean action, in the units of the environment, from action_low to action_high",
        "delivered_acts": facts.get("acts", "mean"),
        "action_low": policy.action_low.tolist(),
        "action_high": policy.action_high.tolist(),
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in values.items()
    }


def _example(policy: Policy, rows: int, spread: float = 1.0) -> NDArray[np.float32]:
    """Observations [rows, D] around the mean of the data."""
    unit = np.random.default_rng(rows).standard_normal((rows, policy.spec.observation_dim))
    observations = policy.observation_mean.numpy() + spread * unit * policy.observation_std.numpy()
    return observations.astype(np.float32)


def _check(policy: Policy, act: Act, form: Format) -> float:
    """The largest difference near the data; too large a one anywhere is an error."""
    scale = max(1.0, float((policy.action_high - policy.action_low).max()) / 2)
    largest = {}
    for spread, tolerance in TOLERANCES.items():
        probes = [_example(policy, rows, spread) for rows in CHECKED_ROWS]
        found = max(float(np.abs(act(probe) - policy.act(probe)).max()) for probe in probes)
        if not found <= tolerance * scale:
            raise RuntimeError(
                f"the {form} file differs from the policy by {found:.2g} at {spread:g} standard deviations "
                f"of the data, expected at most {tolerance * scale:.2g}; it was not kept"
            )
        largest[spread] = found
    return largest[1.0]


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


def _describe_onnx(path: Path, metadata: dict[str, str]) -> None:
    import onnx

    model = onnx.load_model(str(path))
    onnx.helper.set_model_props(model, metadata)
    onnx.save_model(model, str(path))


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
