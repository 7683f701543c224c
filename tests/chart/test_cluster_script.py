"""The steps of `make test-cluster`, with Helm and kubectl against an API in memory and a recorded KFP."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_api import RecordedKfp, make_server
from kube_api import KubeApi

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
SCRIPT = Path(__file__).parents[1] / "cluster" / "try_chart.py"


@pytest.fixture
def kfp() -> Iterator[tuple[RecordedKfp, str]]:
    """A KFP that knows the pipeline: nothing runs in the API in memory, so no job can register it."""
    recorded = RecordedKfp()
    recorded.keep("pipelines", "pipeline_id", {"display_name": "unio4"})
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
    command = [sys.executable, str(SCRIPT), f"--kubeconfig={config}", "--timeout=60", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


def test_all_steps(tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str]) -> None:
    recorded, endpoint = kfp
    api.logs["unio4-test"] = "ok  everything"
    done = run_script(tmp_path, api, f"--kfp-endpoint={endpoint}")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stderr.splitlines() if line.startswith("==")]
    assert [step.split()[1] for step in steps] == ["the", "install", "test", "pipeline", "uninstall", "done"]
    assert "ok  everything" in done.stderr
    [run] = recorded.stored["runs"]
    assert run["service_account"] == "unio4-pipeline"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["artifact_root"] == "s3://unio4/artifacts"
    assert parameters["prepare_image"].startswith("docker.io/unio4/improve-policy:")
    # Nothing is left, not even what an ordinary uninstall keeps.
    assert [key for key in api.objects if key[3] != "ml-pipeline"] == []


def test_a_failed_run_is_told_and_the_release_stays(
    tmp_path: Path, api: KubeApi, kfp: tuple[RecordedKfp, str]
) -> None:
    recorded, endpoint = kfp
    recorded.end_of_runs = "FAILED"
    done = run_script(tmp_path, api, f"--kfp-endpoint={endpoint}")
    assert done.returncode == 1
    assert "ended as FAILED" in done.stderr
    assert api.found("Deployment", "kubeflow")


def test_a_cluster_without_kfp_is_told(tmp_path: Path, api: KubeApi) -> None:
    api.objects.clear()
    done = run_script(tmp_path, api)
    assert done.returncode == 1
    assert "error: kubectl get service ml-pipeline: Error from server (NotFound)" in done.stderr


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), f"--kubeconfig={tmp_path / 'none'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: no cluster: give --kubeconfig FILE (make test-cluster KUBECONFIG=FILE)\n"
