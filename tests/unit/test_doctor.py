"""The doctor names what is broken and does not mind what is not set up."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unio4_lib.cli import commands as cli
from unio4_lib.runs import doctor
from unio4_lib.runs.doctor import Finding, examine

# Nothing listens on port 1.
NOBODY = "http://127.0.0.1:1"


class HealthyAt(BaseHTTPRequestHandler):
    """A server that is healthy at MLflow's and KFP's addresses and nowhere else."""

    release = "2.17.0"

    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/health", "/apis/v2beta1/healthz") else 503)
        self.end_headers()
        self.wfile.write(f'{{"tag_name": "{self.release}"}}'.encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), HealthyAt) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_this_machine_is_ready(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in examine(tmp_path / "not" / "yet", {})}
    needed = ("Python", "PyTorch", "MuJoCo", "native simulation", "disk")
    assert {name: findings[name].state for name in needed} == dict.fromkeys(needed, "ok")
    services = ("S3", "MLflow", "Kubeflow Pipelines")
    assert {name: findings[name].state for name in services} == dict.fromkeys(services, "absent")


def test_lines() -> None:
    assert Finding("disk", "ok", "fine").line() == "✔ disk: fine"
    assert Finding("disk", "broken", "full").line() == "✘ disk: full"
    assert Finding("S3", "absent", "not set").line() == "– S3: not set"


def test_minari_counts_datasets(tmp_path: Path) -> None:
    assert doctor.check_minari({"MINARI_DATASETS_PATH": str(tmp_path / "absent")})[0] == "absent"
    for name in ("a/one-v0", "two-v0"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "metadata.json").write_text("{}")
    found = doctor.check_minari({"MINARI_DATASETS_PATH": str(tmp_path)})
    assert found == ("ok", f"2 datasets in {tmp_path}")


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert doctor.check_disk(taken / "runs")[0] == "broken"
    monkeypatch.setattr(doctor, "LEAST_FREE_GIB", 1e9)
    state, text = doctor.check_disk(tmp_path)
    assert state == "broken"
    assert text.endswith("expected at least 1000000000 GiB")


def test_services_that_answer(server: str) -> None:
    assert doctor.check_mlflow({"MLFLOW_TRACKING_URI": server}) == ("ok", f"{server}/health answers 200")
    assert doctor.check_kfp({"KF_PIPELINES_ENDPOINT": server.removeprefix("http://")})[0] == "ok"
    sick = doctor.check_mlflow({"MLFLOW_TRACKING_URI": f"{server}/elsewhere"})
    assert sick == ("broken", f"{server}/elsewhere/health answers 503 Service Unavailable")


def test_a_kfp_that_is_too_old(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HealthyAt, "release", "2.15.0")
    found = doctor.check_kfp({"KF_PIPELINES_ENDPOINT": server})
    assert found == (
        "broken",
        f"{server}: Kubeflow Pipelines 2.15.0 is too old for the pipeline; expected 2.16 or newer",
    )


def test_services_that_do_not_answer() -> None:
    state, text = doctor.check_mlflow({"MLFLOW_TRACKING_URI": NOBODY})
    assert state == "broken"
    assert text.startswith(f"{NOBODY}/health cannot be reached (")
    assert doctor.check_kfp({"KF_PIPELINES_ENDPOINT": NOBODY})[0] == "broken"
    assert doctor.check_mlflow({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"})[0] == "ok"


def test_s3_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("boto3", reason="the extra s3 is not installed")
    surroundings = {
        "AWS_ENDPOINT_URL": NOBODY,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "here-1",
    }
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    finding = next(finding for finding in examine(tmp_path, surroundings) if finding.name == "S3")
    assert finding.state == "broken"
    assert NOBODY in finding.text


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> tuple[doctor.State, str]:
        raise ImportError("libtorch.so: no\nsuch file")

    monkeypatch.setattr(doctor, "check_torch", fail)
    finding = next(finding for finding in examine(tmp_path, {}) if finding.name == "PyTorch")
    assert finding == Finding("PyTorch", "broken", "ImportError: libtorch.so: no")
    ended = CliRunner().invoke(cli.app, ["doctor", "--output", str(tmp_path)])
    assert ended.exit_code == 1
    assert "✘ PyTorch: ImportError" in ended.stdout


@pytest.mark.parametrize(
    ("image", "left_out"),
    [
        ("prepare-dataset", ["PyTorch"]),
        ("clone-behavior", ["MuJoCo", "native simulation", "Minari datasets"]),
        ("finetune-online", []),
        ("", []),
    ],
)
def test_an_image_is_not_blamed_for_what_it_leaves_out(
    image: str, left_out: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("check_torch", "check_mujoco", "check_simulation", "check_minari"):
        monkeypatch.setattr(doctor, name, lambda *_: 1 / 0)
    found = {finding.name: finding for finding in examine(tmp_path, {"UNIO4_IMAGE": image})}
    missing = ["PyTorch", "MuJoCo", "native simulation", "Minari datasets"]
    assert [name for name in missing if found[name].state == "absent"] == left_out
    assert all(found[name].state == "broken" for name in missing if name not in left_out)


def test_every_image_has_the_name_by_which_the_doctor_knows_it(repository: Path) -> None:
    targets = re.split(
        r"^FROM \S+ AS ", (repository / "images" / "Dockerfile").read_text(), flags=re.MULTILINE
    )
    named = {
        target.split()[0]: name
        for target in targets[1:]
        for name in re.findall(rf"^ENV {doctor.IMAGE_VARIABLE}=(\S+)$", target, re.MULTILINE)
    }
    makefile = (repository / "Makefile").read_text()
    (built,) = re.findall(r"^IMAGES := (.+)$", makefile, re.MULTILINE)
    assert named == {name: name for name in built.split()}
    assert set(doctor.LEFT_OUT) <= set(named)


@pytest.mark.parametrize(
    ("before", "says"),
    [("", "cannot be reached"), ("x@", "cannot be reached"), ("x/", "is no address"), ("[", "is no address")],
)
def test_a_password_of_mlflow_is_not_shown(before: str, says: str, tmp_path: Path) -> None:
    environ = {"MLFLOW_TRACKING_URI": f"http://me:{before}canary-4711@127.0.0.1:1"}
    lines = [finding.line() for finding in examine(tmp_path, environ)]
    assert any("http://127.0.0.1:1" in line and says in line for line in lines)
    assert not any("canary-4711" in line or "'x'" in line for line in lines)
