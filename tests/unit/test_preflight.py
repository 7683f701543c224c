"""What is not there is refused before any stage starts, and soon."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from broken_inputs import Capture, refused, saved, with_info
from made_minari import SOURCE, SPEC, made_minari
from tiny_runs import call

from unio4_lib.cli.tracking import FORMATS
from unio4_lib.errors import InputError
from unio4_lib.runs import local_run
from unio4_lib.serving.export import Format
from unio4_lib.settings.yaml_io import parse_yaml

NOBODY = "http://127.0.0.1:1"
LOCAL = "collect:Hopper-v5?level=random&steps=20"
ABSENT = {
    "dataset": ("minari:nope/x-v0", [], "cannot be reached"),
    "file": ("d4rl:/nope/hopper.hdf5", [], "/nope/hopper.hdf5: no such file"),
    "folder": ("transitions:/nope", [], "/nope: no such folder"),
    "environment": ("collect:Hoper-v5", [], "did you mean 'Hopper-v5'?"),
    "MLflow": (LOCAL, ["--tracking", "http://me:secret@127.0.0.1:1"], "127.0.0.1:1: nobody answers there"),
}
HERE: dict[str, Callable[[Path], str]] = {
    "minari": lambda folder: made_minari(folder, env_spec=json.dumps({**SPEC, "id": "Hoper-v5"})) and SOURCE,
    "transitions": lambda folder: saved(folder, **with_info(env_id="Hoper-v5")),
    "metadata": lambda folder: made_minari(folder, env_spec="[1]") and SOURCE,
}
STORES = {"artifacts": [LOCAL, "--artifact-root", "s3://b/x"], "dataset": ["s3://b/log"]}


@pytest.mark.parametrize("kind", ABSENT)
def test_absent(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    monkeypatch.setattr(local_run, "run_pipeline", lambda *_: pytest.fail("a stage was started"))
    dataset, options, words = ABSENT[kind]
    begun = time.monotonic()
    line = refused(capsys, ["run", "--dataset", dataset, "--output", str(tmp_path / "runs"), *options], words)
    assert time.monotonic() - begun < 3 and "secret" not in line
    assert not (tmp_path / "runs").exists()


def test_a_sweep_begins_with_no_member_if_one_has_no_data(tmp_path: Path, capsys: Capture) -> None:
    datasets = ["--dataset", LOCAL, "--dataset", "d4rl:/nope/hopper.hdf5"]
    words = ["sweep", *datasets, "--output", str(tmp_path / "runs")]
    refused(capsys, words, "/nope/hopper.hdf5: no such file")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", HERE)
def test_what_is_here_names_its_environment(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(local_run, "run_pipeline", lambda *_: pytest.fail("a stage was started"))
    dataset = HERE[kind](tmp_path)
    words = "env_spec is [1]" if kind == "metadata" else "environment 'Hoper-v5' is not registered"
    line = refused(capsys, ["run", "--dataset", dataset, "--output", str(tmp_path / "runs")], words)
    assert line.count(f"dataset {dataset}: ") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", STORES)
def test_absent_stores(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Later they may be there: who runs pipelines tries again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    monkeypatch.setattr(local_run, "run_pipeline", lambda *_: pytest.fail("a stage was started"))
    code, out, err = call(capsys, "run", "--output", str(tmp_path / "runs"), "--dataset", *STORES[kind])
    assert (code, out, err.count("\n")) == (75, "", 1)
    assert f"object storage at {NOBODY} cannot be reached" in err


def test_the_store_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {NOBODY}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    code, _, err = stored(capsys, tmp_path)
    assert (code, err.count("\n")) == (75, 1)
    assert f"object storage at {NOBODY} cannot be reached" in err and "check AWS_ENDPOINT_URL" in err


@pytest.mark.parametrize("silence", ["no name", "no answer"])
def test_no_way_to_amazon(
    silence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Whom nobody names is meant; a search for its name may take as long as it likes."""
    asked = []

    def connect(address: tuple[str, int], _: float) -> None:
        asked.append(address)
        if silence == "no answer":
            time.sleep(30)
        raise OSError("no such host")

    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    begun = time.monotonic()
    code, _, err = stored(capsys, tmp_path)
    assert time.monotonic() - begun < 3
    assert asked == [("s3.eu-west-1.amazonaws.com", 443)]
    assert (code, err.count("\n")) == (75, 1)
    assert "check the network, or set AWS_ENDPOINT_URL if another store is meant" in err


@pytest.mark.parametrize("known", ["nothing", "a key without its secret"])
def test_who_we_are(known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if known != "nothing":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{somebody.getsockname()[1]}")
        code, _, err = stored(capsys, tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert ("no credentials" if known == "nothing" else "missing: AWS_SECRET_ACCESS_KEY") in err


def stored(capsys: Capture, folder: Path) -> tuple[int, str, str]:
    """A run whose artifacts are to lie in a bucket; no stage of it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_run, "run_pipeline", lambda *_: pytest.fail("a stage was started"))
        return call(capsys, "run", "--output", str(folder / "runs"), "--dataset", *STORES["artifacts"])


def test_merge_keys_are_forbidden() -> None:
    bomb = "a: &a {x: 1}\nb: &b\n  <<: [*a, *a]\n"
    with pytest.raises(InputError, match=r"line 3, column 3 << is not understood; write the keys out"):
        parse_yaml(bomb, "my.yaml")


def test_settings_are_shown_without_a_dataset(capsys: Capture) -> None:
    code, out, err = call(capsys, "config", "show", "--set", "seed=7")
    assert code == 0 and "no dataset is named" in err
    assert parse_yaml(out, "shown")["seed"] == 7


def test_formats_are_known_before_pytorch_is_loaded(capsys: Capture) -> None:
    assert get_args(Format) == FORMATS
    refused(capsys, ["export", "nowhere", "--output", "a", "--format", "tflite"], "expected one of onnx,")


WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None  # whoever imports it fails
from unio4_lib.cli.commands import main
main(["export", "nowhere", "--output", "a", "--format", "tflite"])
"""


def test_a_wrong_format_is_refused_before_pytorch_is_loaded() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTORCH], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --format tflite: expected one of onnx, torch-export, torchscript\n"


def test_names_in_a_list_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made_minari(tmp_path)
    (tmp_path / "made").rename(tmp_path / ("long" * 40))
    assert f"minari:{'long' * 40}/set-v0" in call(capsys, "dataset", "list")[1]
