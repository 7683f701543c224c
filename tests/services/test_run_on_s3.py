"""Whole runs whose artifacts are in a real S3 server, on good days and on bad ones."""

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import IMPATIENT_SECONDS, FaultyProxy
from tiny_runs import call, run_arguments, saved_recording
from whole_runs import STAGE_NAMES

from unio4_lib.artifacts import store as stores
from unio4_lib.artifacts.s3 import S3Settings

pytest.importorskip("boto3", reason='no boto3: pip install "unio4[s3]"')
pytestmark = pytest.mark.services

# As patient as by default, in less time.
QUICK = S3Settings(pause=0.02)
FAULT_CHANCE = 0.05

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "S3Settings", lambda: QUICK)


@pytest.fixture(scope="module")
def local(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of the same run on a folder."""
    output = tmp_path_factory.mktemp("local")
    command = [
        sys.executable,
        "-m",
        "unio4_lib.cli",
        *run_arguments(dataset, output),
        "--json",
        "--quiet",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(ended.stdout))


def run_on(
    bucket: Path, dataset: str, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, *more: str
) -> tuple[int, str, str]:
    """A run on a machine whose every folder is ``machine``."""
    monkeypatch.setenv("UNIO4_CACHE", str(machine / "cache"))
    root = ("--artifact-root", f"s3://{bucket.name}/unio4")
    return call(capsys, *run_arguments(dataset, machine / "runs"), *root, "--json", *more)


def reused(summary: dict[str, Any]) -> set[str]:
    return {name for name, facts in summary["stages"].items() if facts["reused"]}


def findings(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        key: summary[key] for key in ("scores", "gate", "online_curve", "policy_digest", "dataset", "dip")
    }


def test_an_empty_machine_has_everything_again_without_computing(
    bucket: Path,
    dataset: str,
    local: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    code, out, err = run_on(bucket, dataset, tmp_path / "first", monkeypatch, capsys)
    assert code == 0, err
    first = json.loads(out)
    assert findings(first) == findings(local)
    # rclone keeps no empty folders apart from real ones: only objects count.
    left = [path for path in (bucket / "unio4" / "checkpoints").rglob("*") if path.is_file()]
    assert left == []
    code, out, err = run_on(bucket, dataset, tmp_path / "second", monkeypatch, capsys)
    second = json.loads(out)
    assert (code, reused(second)) == (0, set(STAGE_NAMES))
    assert findings(second) == findings(first)
    policy = "policies/online/policy.safetensors"
    machines = [tmp_path / name / "runs" / "latest" for name in ("first", "second")]
    assert machines[0].joinpath(policy).read_bytes() == machines[1].joinpath(policy).read_bytes()
    # The dataset is the largest artifact; nobody needed its bytes.
    digest = second["stages"]["prepare-dataset"]["artifact_digest"]
    assert not (tmp_path / "second" / "cache" / "artifacts" / digest).exists()
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "third"))
    uri = f"s3://{bucket.name}/unio4/artifacts/{second['stages']['finetune-online']['artifact_digest']}"
    command = ("evaluate", uri, "--episodes", "4", "--seed", "1000003", "--json", "--quiet")
    code, out, err = call(capsys, *command)
    assert (code, err) == (0, "")
    assert json.loads(out)["mean_return"] == first["scores"]["online"]["mean_return"]
    code, _, err = call(capsys, "evaluate", uri.replace(uri[-64:], "0" * 64), "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "never published" in err


def test_a_damaged_object_is_found_by_whoever_needs_it_and_made_again(
    bucket: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, out, _ = run_on(bucket, dataset, tmp_path / "first", monkeypatch, capsys)
    first = json.loads(out)
    digest = first["stages"]["fit-critics"]["artifact_digest"]
    path = bucket / "unio4" / "artifacts" / digest / "critics.safetensors"
    changed = bytearray(path.read_bytes())
    changed[random.Random(0).randrange(len(changed))] ^= 1
    path.write_bytes(changed)
    more = ("--set", "improve.clip=0.3")  # so that somebody needs it
    code, out, err = run_on(bucket, dataset, tmp_path / "second", monkeypatch, capsys, *more)
    assert code == 0, err
    second = json.loads(out)
    assert "critics.safetensors" in next(line for line in err.splitlines() if "is damaged" in line)
    assert second["stages"]["fit-critics"]["artifact_digest"] == digest
    # The stage that needs the critics has them made again: their own knows of nothing.
    assert reused(second) == {"prepare-dataset", "clone-behavior", "fit-critics", "fit-dynamics"}


def test_a_run_survives_what_is_transient(
    bucket: Path,
    dataset: str,
    local: dict[str, Any],
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    proxy.chance = FAULT_CHANCE
    monkeypatch.setattr(stores, "S3Settings", lambda: replace(QUICK, read_timeout=IMPATIENT_SECONDS))
    more = ("--quiet", "--set", "checkpoint_seconds=0.1")
    code, out, err = run_on(bucket, dataset, tmp_path / "machine", monkeypatch, capsys, *more)
    assert code == 0, err
    assert findings(json.loads(out)) == findings(local)
    assert len(proxy.met) > 3, "the faults were not met"


def test_what_does_not_pass_ends_with_one_line(
    bucket: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def ended(code: int, *words: str) -> None:
        found, out, err = run_on(bucket, dataset, tmp_path, monkeypatch, capsys, "--quiet")
        assert (found, out, err.count("\n")) == (code, "", 1), err
        for word in words:
            assert word in err
        assert not (tmp_path / "runs" / "latest").exists()

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    ended(2, "credentials refused")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tester-secret")
    shutil.rmtree(bucket)
    ended(2, "no bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ended(75, "cannot be reached")
