"""The MLflow model of a policy: logged to a run, and registered when asked."""

import json
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from unio4_lib.errors import InputError
from unio4_lib.tracking.spool import Target

CODE = Path(__file__).parents[1] / "serving" / "acting.py"
NEEDED = ("numpy", "safetensors")  # and MLflow, which an image has as mlflow-skinny
DESCRIPTION = "policy.json"


def save_model(policy: Path, folder: Path) -> None:
    """Write the policy of a folder as an MLflow model."""
    mlflow.pyfunc.save_model(folder, **_parts(policy))


def log_model_once(client: MlflowClient, run_id: str, policy: Path, name: str, target: Target) -> None:
    """Log a policy as a model of a run and register it, unless either was done already.

    Uses MLflow's fluent interface, which knows one run at a time: not for processes with several.
    """
    model_id = _logged(client, run_id, name) or _log(client, run_id, policy, name)
    if target.register is not None:
        number = _register(client, target.register, run_id, model_id)
        if target.alias is not None:
            client.set_registered_model_alias(target.register, target.alias, number)


def _parts(policy: Path) -> dict[str, Any]:
    """Code, weights, requirements, signature and an example."""
    description = json.loads((policy / DESCRIPTION).read_text())
    spec = description["spec"]
    if spec["members"] != 1:
        raise InputError(f"{policy}: {spec['members']} policies in one; expected a single one to act")
    observations, actions = (-1, spec["observation_dim"]), (-1, spec["action_dim"])
    return {
        "python_model": str(CODE),
        "artifacts": {"policy": str(policy)},
        "pip_requirements": [
            f"mlflow=={mlflow.__version__}",
            *(f"{package}=={version(package)}" for package in NEEDED),
        ],
        "signature": ModelSignature(
            Schema([TensorSpec(np.dtype(np.float64), observations, name=None)]),
            Schema([TensorSpec(np.dtype(np.float64), actions, name=None)]),
        ),
        "input_example": np.zeros((1, spec["observation_dim"])),
        "metadata": {name: value for name, value in description.items() if name != "spec"},
    }


def _logged(client: MlflowClient, run_id: str, name: str) -> str | None:
    """The model of that name that the run has."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"name = '{name}' AND source_run_id = '{run_id}'")
    return next((model.model_id for model in found if str(model.status) == "READY"), None)


def _log(client: MlflowClient, run_id: str, policy: Path, name: str) -> str:
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    # MLflow prints where the run can be seen; standard output belongs to the command.
    with redirect_stdout(sys.stderr), mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(name=name, **_parts(policy))
    client.update_run(run_id, status="RUNNING")  # its end is told by whoever has begun it
    assert info.model_id is not None
    return str(info.model_id)


def _register(client: MlflowClient, name: str, run_id: str, model_id: str) -> str:
    """The version of the registered model that is this one."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if known.model_id == model_id or known.source == f"models:/{model_id}":
            return str(known.version)
    made = client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    return str(made.version)
