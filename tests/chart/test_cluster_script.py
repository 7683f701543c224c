"""The steps of `make test-cluster`: Helm and kubectl against an API in memory, KFP and MLflow recorded."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kfp_api import RecordedKfp, make_server
from kube_api import KubeApi
from quick_yaml import documents
from rendered_chart import CHART, find, render
from tiny_settings import SETTINGS

from unio4_lib.methods.configs import load_config
from unio4_lib.sources.grammar import load_transitions

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
SCRIPT = Path(__file__).parents[1] / "cluster" / "try_chart.py"
sys.path.insert(0, str(SCRIPT.parent))
sys.path.insert(0, str(CHART / "files" / "scripts"))

from cluster_runs import DATASET, MISSING  # noqa: E402


@pytest.fixture
def kfp() -> Iterator[tuple[RecordedKfp, str]]:
    """A KFP that knows the pipeline: nothing runs in the API in memory, so no job can register it."""
    recorded = RecordedKfp()
    _, pipeline = recorded.keep("pipelines", "pipeline_id", {"display_name": "unio4"})
    compiled = find(render({}), "ConfigMap", "unio4-pipelines")["data"]["unio4.yaml"]
    spec = {"pipeline_spec": documents(compiled)[0], "platform_spec": {}}
    version = {"pipeline_id": pipeline["pipeline_id"], "display_name": "1", "pipeline_spec": spec}
    recorded.keep("versions", "pipeline_version_id", version)
    server = make_server(recorded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield recorded, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def api() -> Iterator[KubeApi]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    made = KubeApi()
    made.start()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ml-pipeline"}}
    made.create("v1", "kubeflow", "Service", service)
    yield made
    made.stop()


def run_script(folder: Path, api: KubeApi, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = folder / "kubeconfig"
    config.write_text(api.kubeconfig)
    command = [sys.executable, str(SCRIPT), f"--kubeconfig={config}", "--timeout=600", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


class RecordedMlflow(BaseHTTPRequestHandler):
    """MLflow as it would be if KFP's runs ran: a run for each, with a nested run for each stage."""

    kfp: ClassVar[RecordedKfp]
    forgetful: ClassVar[bool] = False

    def do_GET(self) -> None:
        self.send({"experiment": {"experiment_id": "1"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = list(self.runs(asked.get("filter", "")))
        self.send({"runs": [] if self.forgetful else found})

    def runs(self, condition: str) -> Iterator[dict[str, Any]]:
        for submitted in self.kfp.stored["runs"]:
            name, given = submitted["display_name"], submitted["runtime_config"]["parameters"]
            bad = MISSING in str(given["dataset"])
            if "parentRunId" in condition:
                stages = ["prepare-dataset", *(["finetune-online"] if given["finetune"] == "always" else [])]
                nested = stages if f"'{name}'" in condition else []
                yield from (self.run(stage, "FINISHED", {}) for stage in nested)
            elif name in condition or not condition:
                reason = {"unio4.error": f"no {MISSING}"} if bad else {}
                yield self.run(name, "FAILED" if bad else "FINISHED", reason)

    @staticmethod
    def run(name: str, status: str, tags: dict[str, str]) -> dict[str, Any]:
        found = [{"key": key, "value": value} for key, value in {"mlflow.runName": name, **tags}.items()]
        return {"info": {"run_id": name, "status": status}, "data": {"tags": found}}

    def send(self, answer: dict[str, Any]) -> None:
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def mlflow(kfp: tuple[RecordedKfp, str]) -> Iterator[str]:
    RecordedMlflow.kfp, RecordedMlflow.forgetful = kfp[0], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), RecordedMlflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_settings_and_dataset_of_the_check_are_accepted() -> None:
    """By the product itself, and with the returns that differ which its critics need."""
    config = load_config(
        "quick", overrides=[f"{k}={json.dumps(v)}" for k, v in SETTINGS.items()], dataset=DATASET
    )
    assert config.dataset == DATASET
    returns = load_transitions(DATASET.replace("2000", "200")).episode_returns()
    assert len({round(float(one), 3) for one in returns}) > 3


def test_all_steps(tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str) -> None:
    """But the two for which pods must run, or members of a sweep."""
    recorded, endpoint = kfp
    api.logs["unio4-test"] = "ok  everything"
    steps = ["install", "test", "whole", "offline", "upgrade", "again", "uninstall"]
    done = run_script(tmp_path, api, f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}", "--steps", *steps)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.split()[0] in steps]
    assert [line.split()[0] for line in lines] == steps
    assert "ok  everything" in lines[1]
    assert "FINISHED in MLflow, with finetune-online, prepare-dataset" in lines[2]
    assert "FINISHED in MLflow, with prepare-dataset" in lines[3]
    assert "all 2 runs are there" in lines[4] and "all 2 runs are there" in lines[5]
    [run, _] = recorded.stored["runs"]
    assert run["service_account"] == "unio4-pipeline"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["artifact_root"] == "s3://unio4/artifacts"
    assert parameters["prepare_image"].startswith("docker.io/unio4/finetune-online:")
    # Nothing is left, not even what an ordinary uninstall keeps.
    assert [key for key in api.objects if key[3] != "ml-pipeline"] == []


def test_a_failed_run_is_told_and_the_release_stays(
    tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str
) -> None:
    recorded, endpoint = kfp
    recorded.end_of_runs = "FAILED"
    addresses = (f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}")
    done = run_script(tmp_path, api, *addresses, "--steps", "install", "whole", "uninstall")
    assert done.returncode == 1
    assert "error: whole: exit code 1, expected 0: error: run whole-" in done.stderr
    assert api.found("Deployment", "kubeflow")


def test_lost_runs_are_told(tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str) -> None:
    addresses = (f"--kfp-endpoint={kfp[1]}", f"--mlflow={mlflow}")
    assert run_script(tmp_path, api, *addresses, "--steps", "install").returncode == 0
    RecordedMlflow.forgetful = True
    done = run_script(tmp_path, api, *addresses, "--steps", "whole")
    assert done.returncode == 1
    assert "error: whole: MLflow has runs whole-" in done.stderr


def test_a_cluster_without_kfp_is_told(tmp_path: Path, api: KubeApi) -> None:
    api.objects.clear()
    done = run_script(tmp_path, api)
    assert done.returncode == 1
    assert "error: install: kubectl get service ml-pipeline: Error from server (NotFound)" in done.stderr


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), f"--kubeconfig={tmp_path / 'none'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr == "error: no cluster: give --kubeconfig FILE (make test-cluster KUBECONFIG=FILE)\n"
