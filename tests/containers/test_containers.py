"""The whole pipeline in containers: S3, MLflow, an ordinary user, a read-only root; killed and failed."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from broken_inputs import edited, saved
from pushed_sources import KINDS, keys, source_of
from servers import WeedBucket
from tiny_runs import call, run_arguments

from unio4_lib.runs.spec import PipelineSpec, compiled
from unio4_lib.sources.grammar import load_transitions

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.usefixtures("images")]

PATIENCE_SECONDS = 1200  # a minute on a quiet machine

PROBE = """
import importlib.util, os, pathlib, shutil
try:
    pathlib.Path("/probe").touch()
    print("writable")
except OSError:
    print("read-only")
print(os.getuid(), shutil.which("pip"), shutil.which("gcc"), importlib.util.find_spec("torch") is not None)
"""


def in_containers(
    dataset: str, output: Path, bucket: Path | WeedBucket, tracking: str, **changed: object
) -> list[str]:
    arguments = run_arguments(dataset, output, **changed)
    arguments = ["docker" if argument == "inline" else argument for argument in arguments]
    arguments = [tracking if argument == "none" else argument for argument in arguments]
    return [*arguments, "--artifact-root", f"s3://{bucket.name}/root", "--json"]


def statuses(database: Path) -> dict[str, str]:
    """Of each MLflow run by name; the last one of a name counts."""
    with sqlite3.connect(database) as connection:
        return dict(connection.execute("select name, status from runs order by start_time"))


@pytest.mark.parametrize(
    ("component", "torch"), [("close-run", False), ("clone-behavior", True), ("finetune-online", True)]
)
def test_images_hold_what_they_should(component: str, torch: bool) -> None:
    image = PipelineSpec.load(compiled("unio4")).image(component)
    command = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", image, "python3", "-c", PROBE]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["read-only", "65532", "None", "None", str(torch)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run_from_a_pushed_log(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    weed_bucket: WeedBucket,
    mlflow_server: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the chart's own object store, with the results that the log itself gives on this machine."""
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    log, pushed = source_of(kind, tmp_path, monkeypatch), f"s3://{weed_bucket.name}/log"
    code, _, err = call(capsys, "dataset", "push", log, pushed)
    assert code == 0, err
    code, out, err = call(capsys, *in_containers(pushed, tmp_path / "runs", weed_bucket, mlflow_server[0]))
    assert code == 0, err
    assert "are not at" not in err  # nothing is left behind
    found = json.loads(out)
    assert list(found["stages"])[-1] == "report"
    stored = keys(weed_bucket.client, weed_bucket.name)
    assert {key.partition("/")[0] for key in stored} == {"log", "root"}
    [about] = [key for key in stored if key.startswith("root/") and key.endswith("/transitions/info.json")]
    content = weed_bucket.client.get_object(Bucket=weed_bucket.name, Key=about)["Body"].read()
    assert json.loads(content)["digest"] == load_transitions(log).digest()
    runs = statuses(mlflow_server[1])
    assert runs.pop(found["run_id"]) == "FINISHED"
    assert set(runs.values()) == {"FINISHED"}
    assert {name.rpartition("/")[2] for name in runs} >= set(found["stages"])

    code, out, _ = call(capsys, *run_arguments(log, tmp_path / "here"), "--json")
    assert code == 0
    assert json.loads(out)["policy_digest"] == found["policy_digest"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders to the user of the images")
def test_root_runs_stages_as_itself_and_then_in_containers_all_in_its_home(
    capsys: pytest.CaptureFixture[str], dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory(dir=Path.home()) as folder:
        monkeypatch.setenv("UNIO4_CACHE", f"{folder}/cache")
        arguments = run_arguments(dataset, Path(folder) / "runs")
        assert call(capsys, *arguments)[0] == 0
        arguments = run_arguments(dataset, Path(folder) / "runs", finetune__env_steps=1200)
        arguments = ["docker" if argument == "inline" else argument for argument in arguments]
        code, out, err = call(capsys, *arguments, "--json")
        assert code == 0, err
        assert json.loads(out)["stages"]["finetune-online"]["reused"] is False


@pytest.mark.parametrize("method", ["iql", "tournament"])
def test_methods_with_learners_run_in_containers(
    method: str, capsys: pytest.CaptureFixture[str], dataset: str, bucket: Path, tmp_path: Path
) -> None:
    """Their settings stand beside PyTorch code: also where settings are only read, it has to be there."""
    sizes = {"train.steps": 40, "train.batch_size": 32, "evaluate.episodes": 4, "finetune.env_steps": 400}
    sizes |= {"finetune.evaluate_every": 200, "finetune.evaluate_episodes": 3, "finetune.warmup_steps": 100}
    arguments = ["run", "--runner", "docker", "--method", method, "--dataset", dataset, "--tracking", "none"]
    if method == "tournament":
        arguments = [*in_containers(dataset, tmp_path / "runs", bucket, "none"), "--method", method]
        sizes = {name: size for name, size in sizes.items() if name.startswith("train")}
    else:
        arguments += ["--output", str(tmp_path / "runs"), "--json", "--set", "iql.hidden=[16]"]
        arguments += ["--artifact-root", f"s3://{bucket.name}/root"]
    sets = [part for name, size in sizes.items() for part in ("--set", f"{name}={size}")]
    code, out, err = call(capsys, *arguments, *sets)
    assert code == 0, err
    assert list(json.loads(out)["stages"])[-2:] == ["finetune-online", "report"]


def test_a_failed_stage_is_said_and_the_mlflow_run_has_failed(
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    bucket: Path,
    mlflow_server: tuple[str, Path],
    tmp_path: Path,
) -> None:
    wrong = saved(tmp_path, **edited("rewards", 7, float("nan")))
    arguments = in_containers(wrong, tmp_path / "runs", bucket, mlflow_server[0])
    code, _, err = call(capsys, *arguments, "--run-name", "the-bad-one")
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: prepare-dataset: dataset {wrong}: rewards")
    assert statuses(mlflow_server[1])["the-bad-one"] == "FAILED"


def test_a_killed_container_goes_on_from_its_checkpoint(dataset: str, bucket: Path, tmp_path: Path) -> None:
    arguments = in_containers(
        dataset, tmp_path / "runs", bucket, "none", finetune__env_steps=40_000, checkpoint_seconds=1.0
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "unio4_lib.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    image = PipelineSpec.load(compiled("unio4")).image("finetune-online")
    container, deadline = "", time.monotonic() + PATIENCE_SECONDS
    try:
        while not container or not list(bucket.glob("root/checkpoints/*/*.ckpt")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            # Of this run, by what is mounted: other runs on this machine have containers of that image too.
            ours = ["--filter", f"ancestor={image}", "--filter", f"volume={tmp_path / 'cache'}"]
            listed = ["docker", "ps", *ours, "--format", "{{.Names}}"]
            container = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.strip()
            time.sleep(0.2)
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.terminate()  # a run that nobody waits for any more
    assert process.returncode == 0, err
    assert "finetune-online: was killed; attempt 2" in err
    assert "finetune-online: resumed from its last checkpoint" in err
    assert json.loads(out)["stages"]["finetune-online"]["resumed"] is True
