"""Policies on disk: weights as safetensors, shape as JSON; nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any, TypeVar, overload

from safetensors.torch import load, save_file

from unio4_lib.errors import InputError
from unio4_lib.files import read_plain
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import Policy, PolicySpec

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"
P = TypeVar("P", bound=Policy)


def save_policy(policy: Policy, folder: Path, **facts: Any) -> None:
    """Write weights, scales and shape; ``facts`` (JSON values, such as the environment) stand beside."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    description = {"spec": policy.spec.to_json(), **facts}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


@overload
def load_policy(folder: Path) -> tuple[Policy, dict[str, Any]]: ...


@overload
def load_policy(folder: Path, wanted: type[P]) -> tuple[P, dict[str, Any]]: ...


def load_policy(folder: Path, wanted: type[Policy] = Policy) -> tuple[Policy, dict[str, Any]]:
    """The policy of a folder, of any kind or of the one that is wanted, and the facts saved with it."""
    try:
        description = json.loads(read_plain(folder / DESCRIPTION))
        spec, weights = PolicySpec.from_json(description.pop("spec")), read_plain(folder / WEIGHTS)
        if spec.weights() > len(weights):  # before they are made
            raise ValueError(f"{spec.weights()} weights in {len(weights)} bytes")
        policy = build_policy(spec)
        policy.load_state_dict(load(weights))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no policy here, {Path(str(error.filename)).name} is missing; expected the folder "
            f"of a run or of a policy with {DESCRIPTION} and {WEIGHTS}"
        ) from error
    except Exception as error:  # safetensors, json and torch each have classes of their own
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: the policy cannot be read: {text}; expected a policy of unio4"
        ) from error
    if not isinstance(policy, wanted):
        raise InputError(f"{folder}: the policy is {policy.spec.kind}; expected a {wanted.__name__}")
    return policy.requires_grad_(False), description
