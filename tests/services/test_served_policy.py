"""The final policy acts where unio4 is not installed: loaded by MLflow, and asked over HTTP."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow_process import MlflowServer, free_port
from sender_here import LONGEST_SECONDS, send_here

from unio4_lib.errors import InputError
from unio4_lib.nets.files import load_policy, save_policy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.tracking.tracker import make_tracker

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")

from mlflow.models import get_model_info
from mlflow.tracking import MlflowClient

from unio4_lib.tracking.registry import save_model

# Neither we nor torch can be imported there.
ELSEWHERE = """
import sys
sys.modules.update({"unio4_lib": None, "torch": None})
import json, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(numpy.array(json.loads(sys.argv[2]))).tolist()))
"""
SPECS = ({}, {"activation": "tanh", "hidden": [16]}, {"activation": "silu", "std": "shared"})


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policy")


def write_policy(folder: Path, **changed: object) -> Path:
    values = {"members": 1, "observation_dim": 5, "action_dim": 2, "hidden": [32, 32]} | changed
    random = torch.Generator().manual_seed(1)
    policy = GaussianPolicy(PolicySpec.from_json(values), generator=random)
    scales = torch.randn(5, generator=random), torch.rand(5, generator=random) + 0.5
    policy.set_scales(*scales, torch.tensor([-1.0, -0.4]), torch.tensor([1.0, 0.8]))
    save_policy(policy, folder, env_id="Some-v1", env_kwargs={})
    return folder


def some_observations() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 5))


def act_elsewhere(uri: str, observations: np.ndarray, **variables: str) -> np.ndarray:
    command = [sys.executable, "-c", ELSEWHERE, uri, json.dumps(observations.tolist())]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return np.array(json.loads(done.stdout))


def test_a_registered_policy_acts_in_a_process_without_us(
    mlflow_server: MlflowServer, policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_here(monkeypatch)
    name = f"policy-{time.time_ns()}"
    for attempt in ("first", "again"):  # a retry registers nothing a second time
        with (
            make_tracker(
                mlflow_server.uri,
                experiment=name,
                run_name="a",
                run_key="k",
                spool=tmp_path / attempt,
                register=name,
                alias="champion",
            ) as tracker,
            tracker.run() as run,
        ):
            run.log_model(policy_folder)
    client = MlflowClient(mlflow_server.uri, registry_uri=mlflow_server.uri)
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert client.get_model_version_by_alias(name, "champion").version == version.version
    experiment = client.get_experiment_by_name(name)
    (run,) = client.search_runs([experiment.experiment_id])
    (logged,) = client.search_logged_models([experiment.experiment_id])
    assert (logged.name, logged.source_run_id) == ("policy", run.info.run_id)
    assert run.info.status == "FINISHED"

    observations = some_observations()
    there = act_elsewhere(f"models:/{name}@champion", observations, MLFLOW_TRACKING_URI=mlflow_server.uri)
    here = load_policy(policy_folder)[0].act(observations)
    np.testing.assert_allclose(there, here, atol=1e-6, rtol=0)


def test_the_model_names_what_it_needs_and_takes(policy_folder: Path, tmp_path: Path) -> None:
    save_model(policy_folder, tmp_path / "model")
    needed = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert sorted(line.partition("==")[0] for line in needed) == ["mlflow", "numpy", "safetensors"]
    info = get_model_info(str(tmp_path / "model"))
    assert info.metadata == {"env_id": "Some-v1", "env_kwargs": {}}
    shapes = [info.signature.inputs.inputs[0].shape, info.signature.outputs.inputs[0].shape]
    assert shapes == [(-1, 5), (-1, 2)]
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]


@pytest.mark.parametrize("changed", SPECS, ids=str)
def test_every_kind_of_policy_acts_alike(changed: dict[str, object], tmp_path: Path) -> None:
    import mlflow

    folder = write_policy(tmp_path / "policy", **changed)
    save_model(folder, tmp_path / "model")
    there = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(some_observations())
    here = load_policy(folder)[0].act(some_observations())
    np.testing.assert_allclose(there, here, atol=1e-6, rtol=0)


def test_several_policies_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 policies in one"):
        save_model(write_policy(tmp_path / "policy", members=2), tmp_path / "model")


def test_a_policy_answers_over_http(policy_folder: Path, tmp_path: Path) -> None:
    save_model(policy_folder, tmp_path / "model")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(tmp_path / "model")]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # It starts another program of this environment, by its name.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        body = json.dumps({"inputs": some_observations().tolist()}).encode()
        answer = ask(f"http://127.0.0.1:{port}/invocations", body, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    here = load_policy(policy_folder)[0].act(some_observations())
    np.testing.assert_allclose(answer["predictions"], here, atol=1e-6, rtol=0)


def ask(url: str, body: bytes, process: subprocess.Popen[bytes]) -> dict[str, list[list[float]]]:
    """Ask until the server is up."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not answer"
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return dict(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            time.sleep(0.2)
