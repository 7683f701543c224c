"""Secrets reach whoever signs in with them, and no file, no command line and nothing that is said."""

import os
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny_runs import call, run_arguments
from whole_runs import tiny_config

from unio4_lib.artifacts.s3 import S3Settings, StoreUnavailable
from unio4_lib.artifacts.s3_transfer import Bucket
from unio4_lib.errors import InputError
from unio4_lib.runs import local_run, local_sweep, preflight
from unio4_lib.runs.folder import RunFolder
from unio4_lib.runs.launch import Launch, ProcessLauncher
from unio4_lib.tracking.address import ADDRESS_VARIABLE, hidden, signed_in, whole, without_password
from unio4_lib.tracking.sender import Sending
from unio4_lib.tracking.spool import Target

SECRET = "canary-4711"
ADDRESS = f"http://somebody:{SECRET}@127.0.0.1:9"
DATABASE = f"postgresql://somebody:{SECRET}@127.0.0.1:9/mlflow"


class Listening(ProcessLauncher):
    """Hears every command line and its surroundings; nothing but the first stage does its work."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.surroundings: list[Mapping[str, str]] = []

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Launch:
        launch = super().command(image, command, environment)
        self.lines.append(" ".join(launch.command))
        self.surroundings.append(launch.environment)
        works = "prepare_dataset" in command
        return launch if works else Launch(["sh", "-c", "echo error: no >&2; exit 1"], launch.environment)


def files_with_the_secret(*folders: Path) -> list[str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def private(folder: Path) -> bool:
    return folder.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_run_leaves_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dataset: str, tmp_path: Path
) -> None:
    launcher = Listening()
    monkeypatch.setattr(local_run, "make_launcher", lambda *_: launcher)
    monkeypatch.setattr(preflight, "check_places", lambda *_: None)  # nobody answers at the address
    arguments = [
        "process" if word == "inline" else word for word in run_arguments(dataset, tmp_path / "runs")
    ]
    code, out, err = call(capsys, *arguments, "--tracking", ADDRESS)
    assert code == 1
    assert len(launcher.lines) > 1
    (folder,) = (tmp_path / "runs").glob("2*")
    assert private(folder)
    assert SECRET not in out + err + "".join(launcher.lines)
    assert files_with_the_secret(tmp_path) == []


def test_stages_of_a_sweep_learn_the_address_from_their_surroundings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = Listening()
    monkeypatch.setattr(local_sweep, "make_launcher", lambda *_: launcher)
    monkeypatch.setattr(preflight, "check_places", lambda *_: None)  # nobody answers at the address
    out = tmp_path / "runs"
    code, _, err = call(
        capsys,
        *("sweep", "--dataset", "transitions:/no/such/folder", "--seeds", "1", "--name", "s", "--quiet"),
        *("--output", str(out), "--cache", str(tmp_path / "cache"), "--tracking", ADDRESS),
    )
    assert code == 2
    assert SECRET not in err + "".join(launcher.lines)
    assert all(found[ADDRESS_VARIABLE] == ADDRESS for found in launcher.surroundings)
    assert files_with_the_secret(tmp_path) == []
    assert private(out / "s")
    known = without_password(ADDRESS)
    assert whole(known, launcher.surroundings[0]) == ADDRESS
    assert whole("http://elsewhere", launcher.surroundings[0]) == "http://elsewhere"


@pytest.mark.parametrize("command", [["submit"], ["sweep", "--runner", "kfp", "--seeds", "1"]])
def test_a_cluster_is_not_told_a_password(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, _, err = call(
        capsys,
        *(*command, "--dataset", "minari:x/y-v0", "--artifact-root", "s3://b/p", "--tracking", ADDRESS),
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "MLFLOW_TRACKING_PASSWORD in the secret unio4-mlflow" in err
    assert SECRET not in err


def test_mlflow_gets_the_password_by_variables_and_its_errors_do_not_show_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ: dict[str, str] = {}
    assert signed_in("https://a%40b:c%2Fd@host/x", environ) == "https://host/x"
    assert environ == {"MLFLOW_TRACKING_USERNAME": "a@b", "MLFLOW_TRACKING_PASSWORD": "c/d"}
    assert signed_in("sqlite:///x.db", environ) == "sqlite:///x.db"
    assert (
        hidden(f"no way to {DATABASE}", DATABASE) == "no way to postgresql://somebody:***@127.0.0.1:9/mlflow"
    )

    def fail(self: object, uri: str, *_: object) -> None:
        raise InputError(f"no way to {uri}")

    delivery = pytest.importorskip("unio4_lib.tracking.delivery")
    monkeypatch.setattr(delivery.Delivery, "__init__", fail)
    Target("http://host", "e", "r", "k", None, None, None).save(tmp_path)
    Sending(tmp_path, DATABASE).attempt()
    assert "***" in (tmp_path / "state.json").read_text()
    assert files_with_the_secret(tmp_path) == []
    assert SECRET not in str(os.environ)


PROXY = f"http://somebody:{SECRET}@127.0.0.1:9"
# Each variable by which a secret may reach a run, and none by which it may leave it.
SURROUNDINGS = {
    "AWS_ACCESS_KEY_ID": f"{SECRET}-key",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}-secret",
    "AWS_SESSION_TOKEN": f"{SECRET}-session",
    "AWS_ENDPOINT_URL": PROXY,
    "HF_TOKEN": f"hf_{SECRET}",
    "HTTPS_PROXY": PROXY,
    "HTTP_PROXY": PROXY,
    "KF_PIPELINES_TOKEN": SECRET,
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "MLFLOW_TRACKING_URI": ADDRESS,
}


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in SURROUNDINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # the first use of urlopen keeps the proxies of then


@pytest.mark.slow
@pytest.mark.usefixtures("surroundings")
def test_a_whole_run_leaves_no_secret_of_its_surroundings(
    capsys: pytest.CaptureFixture[str], dataset: str, tmp_path: Path
) -> None:
    words = run_arguments(dataset, tmp_path / "runs")
    place = words.index("--tracking")
    code, out, err = call(capsys, *words[:place], *words[place + 2 :])
    assert code == 0
    assert "tracking" in err and "127.0.0.1:9" in err  # it was looked for, with the password
    assert SECRET not in out + err
    assert files_with_the_secret(tmp_path) == []


WITH_SECRETS = {
    "root": (["artifacts", "list", "--artifact-root", f"s3://key:{SECRET}@bucket/x"], "they belong in AWS's"),
    "root of a run": (
        ["run", "--dataset", "collect:Hopper-v5", "--artifact-root", f"s3://key:{SECRET}@bucket/x"],
        "they belong in AWS's",
    ),
    "dataset": (["run", "--dataset", f"s3://key:{SECRET}@bucket/x"], "they belong in AWS's"),
    "dataset that is looked at": (
        ["dataset", "inspect", f"s3://key:{SECRET}@bucket/x"],
        "they belong in AWS's",
    ),
    "root on a cluster": (
        ["submit", "--dataset", "minari:a/b-v0", "--artifact-root", f"s3://key:{SECRET}@b/p"],
        "they belong in AWS's",
    ),
    "dataset on a cluster": (
        ["submit", "--dataset", f"s3://key:{SECRET}@b/p", "--artifact-root", "s3://b/p"],
        "they belong in AWS's",
    ),
    "root of a sweep": (
        [
            "sweep",
            "--dataset",
            "collect:Hopper-v5",
            "--artifact-root",
            f"s3://key:{SECRET}@b/p",
            "--seeds",
            "1",
        ],
        "they belong in AWS's",
    ),
    "dataset of a sweep": (
        ["sweep", "--dataset", f"s3://key:{SECRET}@b/p", "--seeds", "1"],
        "they belong in AWS's",
    ),
    "cluster": (
        ["submit", "--dataset", "minari:a/b-v0", "--artifact-root", "s3://b/p", "--tracking", "http://m"],
        "no Kubeflow Pipelines answers",
    ),
    "doctor": (["doctor"], "127.0.0.1:9"),
}


@pytest.mark.parametrize("kind", WITH_SECRETS)
@pytest.mark.usefixtures("surroundings")
def test_what_is_said_shows_no_secret(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", PROXY)
    monkeypatch.chdir(tmp_path)
    command, words = WITH_SECRETS[kind]
    code, out, err = call(capsys, *command)
    assert code != 0 and words in out + err
    assert SECRET not in out + err
    assert [path for path in tmp_path.iterdir() if path.name != "home"] == []


@pytest.mark.usefixtures("surroundings")
def test_a_store_that_does_not_answer_is_named_without_its_password() -> None:
    pytest.importorskip("boto3")
    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:9") as caught:
        Bucket("bucket", S3Settings(attempts=1, pause=0.0)).read("x")
    assert SECRET not in str(caught.value)


ODD_SECRETS = [f"{SECRET}@x", f"x@{SECRET}", f"x/{SECRET}", f"{SECRET}/x", f"x#{SECRET}", f"[{SECRET}"]


@pytest.mark.parametrize("secret", ODD_SECRETS)
def test_a_password_that_nobody_encoded_is_not_shown(
    secret: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = f"http://somebody:{secret}@127.0.0.1:9"
    words = run_arguments("collect:Hopper-v5", tmp_path / "runs")
    code, out, err = call(capsys, *words, "--tracking", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'http://127.0.0.1:9' is no address; expected" in err or "127.0.0.1:9: nobody answers" in err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    code, out, more = call(capsys, "submit", "--dataset", "minari:a/b-v0", "--artifact-root", "s3://b/p")
    assert SECRET not in err + out + more and code == 2


def test_failures_are_written_down_without_passwords(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, tiny_config("transitions:/x"))
    folder.fail(RuntimeError(f"no way to {ADDRESS}"), [])
    assert "no way to http://127.0.0.1:9" in (folder.path / "failed.txt").read_text()


@pytest.mark.parametrize("query", ["user=x&password={}", "PWD={}"])
def test_a_password_in_a_query_is_refused(
    query: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = f"postgresql://somebody@127.0.0.1:9/mlflow?{query.format(SECRET)}"
    words = run_arguments("collect:Hopper-v5", tmp_path / "runs")
    code, out, err = call(capsys, *words, "--tracking", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'postgresql://127.0.0.1:9/mlflow': a password in its query" in err and SECRET not in err
    assert not (tmp_path / "runs").exists()
