"""A password in the address of MLflow reaches whoever signs in with it, and no file and no command line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny_runs import call, run_arguments

from unio4_lib.errors import InputError
from unio4_lib.runs import local_run, local_sweep, preflight
from unio4_lib.runs.launch import Launch, ProcessLauncher
from unio4_lib.tracking import tracker
from unio4_lib.tracking.address import ADDRESS_VARIABLE, hidden, signed_in, whole
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
    known = tracker.without_password(ADDRESS)
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
