"""The steps of `make test-cluster`: Helm and kubectl against an API in memory, KFP and MLflow recorded."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kfp_api import RecordedKfp, make_server
from kfp_steps import pod_logs, step
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

from cluster import Cluster, StepFailedError, wait_for_port  # noqa: E402
from cluster_runs import DATASET, MISSING, PARENT  # noqa: E402


@pytest.fixture
def kfp() -> Iterator[tuple[RecordedKfp, str]]:
    """A KFP that knows the pipelines: nothing runs in the API in memory, so no job can register them."""
    recorded = RecordedKfp()
    for file, compiled in find(render({}), "ConfigMap", "unio4-pipelines")["data"].items():
        if file in ("unio4.yaml", "leaderboard.yaml"):
            spec = documents(compiled)[0]
            told = {"display_name": spec["pipelineInfo"]["name"], "namespace": "kubeflow"}
            _, pipeline = recorded.keep("pipelines", "pipeline_id", told)
            version = {"pipeline_id": pipeline["pipeline_id"], "display_name": "1"}
            version["pipeline_spec"] = {"pipeline_spec": spec, "platform_spec": {}}
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
            if "leaderboard" in name:  # tracks nothing
                continue
            bad = MISSING in str(given["dataset"])
            state = "FAILED" if bad else "FINISHED"
            if ("parentRunId" in condition and f"'{name}'" in condition) or not condition:
                stages = ["prepare-dataset", *(["finetune-online"] if given["finetune"] == "always" else [])]
                yield from (self.run(f"{name}/{stage}", state, {PARENT: name}) for stage in stages)
            if f"run_name = '{name}'" in condition or not condition:
                yield self.run(name, state, {"unio4.error": f"no {MISSING}"} if bad else {})

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
    """But those in which something fails or is deleted."""
    recorded, endpoint = kfp
    api.logs["unio4-test"] = "ok  everything"
    steps = ["install", "test", "whole", "offline", "upgrade", "again", "uninstall"]
    done = run_script(tmp_path, api, f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}", "--steps", *steps)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.split()[0] in steps]
    assert [line.split()[0] for line in lines] == steps
    assert "ok  everything" in lines[1]
    assert "FINISHED in MLflow, with whole-" in lines[2] and "/finetune-online, " in lines[2]
    assert "FINISHED in MLflow, with offline-" in lines[3] and "finetune-online" not in lines[3]
    assert "all 5 runs are there" in lines[4] and "all 5 runs are there" in lines[5]
    [run, _] = recorded.stored["runs"]
    assert run["service_account"] == "unio4-pipeline"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["artifact_root"] == "s3://unio4/artifacts"
    assert parameters["prepare_image"].startswith("docker.io/unio4/finetune-online:")
    # Nothing is left, not even what an ordinary uninstall keeps.
    assert [key for key in api.objects if key[3] != "ml-pipeline"] == []


def test_steps_in_which_something_fails(
    tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str
) -> None:
    recorded, endpoint = kfp
    recorded.plan, recorded.logs = one_fails, pod_logs(f"prepare-dataset: {MISSING}: not there")
    addresses = (f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}")
    done = run_script(tmp_path, api, *addresses, "--steps", "install", "failing", "sweep")
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()  # on a busy machine also of what it waits for
    assert f"failing    FAILED in MLflow: no {MISSING}" in said
    assert "error: 1 of 2 members did not succeed; the first: sweep-" in done.stderr


def one_fails(run: dict[str, Any]) -> list[dict[str, Any]]:
    if MISSING in str(run["runtime_config"]["parameters"].get("dataset")):
        return [step("FAILED", prepare_dataset="FAILED")] * 3
    return [step("SUCCEEDED", report="SUCCEEDED")] * 3


def test_a_deleted_pod_must_be_followed_by_one_that_resumed(
    tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str
) -> None:
    recorded, endpoint = kfp
    api.logs |= {
        "first-container-impl": "clone-behavior: 9,800/60,000 (134/s, 0:06:16 left) likelihood -1\n",
        "second-container-impl": "clone-behavior: resumed from its last checkpoint\n",
    }

    def two_pods(run: dict[str, Any]) -> list[dict[str, Any]]:
        for name in api.logs:
            container = {"name": "main", "image": "i", "args": ["--function_to_execute", "clone_behavior"]}
            labels = {"pipeline/runid": run["run_id"]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
            api.create("v1", "kubeflow", "Pod", pod | {"spec": {"containers": [container]}})
        return [step("SUCCEEDED", clone_behavior="SUCCEEDED")]

    recorded.plan = two_pods
    addresses = (f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}")
    done = run_script(tmp_path, api, *addresses, "--steps", "install", "preempted")
    assert done.returncode == 0, done.stderr
    told = "first-container-impl was deleted at 'clone-behavior: 9,800/60,000 (134/s, 0:06:16 left)'"
    assert told in done.stderr
    assert "second-container-impl resumed from its checkpoint" in done.stderr
    assert ("delete", "Pod", "first-container-impl") in api.history

    # One that began anew is told; so is a run that ends before there is anything to delete.
    for name in ("first-container-impl", "second-container-impl"):
        api.objects.pop(("v1", "kubeflow", "Pod", name), None)
    api.logs["second-container-impl"] = ""
    done = run_script(tmp_path, api, *addresses, "--steps", "preempted")
    assert (done.returncode, "none says that it resumed" in done.stderr) == (1, True), done.stderr
    recorded.plan = one_fails
    done = run_script(tmp_path, api, *addresses, "--steps", "preempted")
    assert "error: preempted: the run has ended, and a pod of clone_behavior was not seen" in done.stderr


def test_users_have_namespaces(
    tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str], mlflow: str
) -> None:
    recorded, endpoint = kfp
    recorded.allowed = {"kubeflow"}
    values = tmp_path / "values.yaml"
    values.write_text("kfp: {multiUser: true}\nnetworkPolicy: {enabled: false}\n")
    addresses = (f"--values={values}", f"--kfp-endpoint={endpoint}", f"--mlflow={mlflow}")
    done = run_script(tmp_path, api, *addresses, "--steps", "install", "whole")
    assert done.returncode == 0, done.stderr
    assert recorded.stored["experiments"][0]["namespace"] == "kubeflow"


def test_a_port_is_forwarded_again_to_the_pod_that_took_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubectl that ends after each answer, as if its pod had gone."""
    starts = tmp_path / "starts"
    program = (
        "import socket, sys\n"
        f"open({str(starts)!r}, 'a').write('x')\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[-1].split(':')[0])))\n"
        "server.accept()[0].close()\n"
    )
    replace_kubectl(tmp_path, monkeypatch, program)
    with Cluster(tmp_path / "config", "team", "unio4", "kubeflow", 60).forward("s", 5000) as address:
        deadline = time.monotonic() + 60
        while len(starts.read_text()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        wait_for_port(int(address.rpartition(":")[2]))
    assert len(starts.read_text()) > 1


def test_a_kubectl_that_does_not_come_to_an_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_kubectl(tmp_path, monkeypatch, "import time\ntime.sleep(60)\n")
    with pytest.raises(StepFailedError, match="kubectl delete pod a: not done after 1 s"):
        Cluster(tmp_path / "config", "team", "unio4", "kubeflow", 1).kubectl("delete", "pod", "a")


def replace_kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    (folder / "kubectl").write_text(f"#!{sys.executable}\n{program}")
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


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


def test_values_that_are_not_there_are_told(tmp_path: Path, api: KubeApi) -> None:
    done = run_script(tmp_path, api, "--values", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stderr == "error: --values nowhere.yaml: no such file; charts/unio4/examples has some\n"
