"""``unio4 run --dry-run``: what a run would ask for, and nothing is started or written."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from broken_inputs import ENVIRONMENT, ROWS, WIDTH, Capture, refused, saved
from made_minari import EPISODES, SOURCE, STEPS, made_minari
from tiny_runs import call, set_arguments
from whole_runs import all_artifacts, tiny_config

from unio4_lib.data.preview import Preview
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.sources.preview import preview
from unio4_lib.stages import estimate
from unio4_lib.stages.sizes import shown
from unio4_lib.stages.step import PREPARE, Layers

RECORDING = f"collect:{ENVIRONMENT}?level=random&steps=600"


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "PROBE_SECONDS", 0.0)


def estimated(capsys: Capture, dataset: str, output: Path, *more: str) -> dict[str, Any]:
    command = ["run", "--dry-run", "--json", "--dataset", dataset, "--output", str(output), *more]
    code, out, err = call(capsys, *command)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found | {"stages": {stage["stage"]: stage for stage in found["stages"]}}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_written(method: str, tmp_path: Path, capsys: Capture) -> None:
    found = estimated(capsys, RECORDING, tmp_path / "runs", "--method", method)
    assert list(tmp_path.iterdir()) == []
    stages = found["stages"]
    assert found["machine_memory_bytes"] > 0 and found["free_disk_bytes"] > 0
    assert all(not stage["reused"] for stage in stages.values())
    assert stages["finetune-online"]["seconds"] > 0 and stages["report"]["seconds"] is None


def test_more_work_takes_more(tmp_path: Path, capsys: Capture) -> None:
    little = estimated(capsys, RECORDING, tmp_path, *set_arguments())["stages"]["clone-behavior"]
    wide = set_arguments(behavior__hidden=[1024, 1024])
    much = estimated(capsys, RECORDING, tmp_path, *wide)["stages"]["clone-behavior"]
    for name in ("memory_bytes", "disk_bytes", "seconds"):
        assert much[name] > little[name], name
    long = estimated(capsys, RECORDING, tmp_path, *set_arguments(behavior__steps=10**9))["stages"]
    assert long["clone-behavior"]["seconds"] > 1000 * little["seconds"]


def test_what_is_there_is_reused(tmp_path: Path, capsys: Capture) -> None:
    dataset = saved(tmp_path)
    all_artifacts(tiny_config(dataset), tmp_path / "runs/artifacts")
    stages = estimated(capsys, dataset, tmp_path / "runs", *set_arguments())["stages"]
    assert all(stage["reused"] and stage["seconds"] == 0 for stage in stages.values())
    other = estimated(capsys, dataset, tmp_path / "runs", *set_arguments(finetune__clip=0.1))["stages"]
    computed = [name for name, stage in other.items() if not stage["reused"]]
    assert computed == ["finetune-online", "report"]


def test_the_table_says_what_it_means(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = call(capsys, "run", "--dry-run", "--dataset", RECORDING, "--output", str(tmp_path))
    assert code == 0
    assert "at least so much" in out and "Evaluations and all\nelse come on top" in out
    assert "clone-behavior" in out and "unknown" in out


def test_what_cannot_be_is_refused_as_in_a_run(tmp_path: Path, capsys: Capture) -> None:
    command = ["run", "--dry-run", "--output", str(tmp_path / "runs"), "--dataset"]
    refused(capsys, [*command, "transitions:/nope"], "no such folder")
    refused(capsys, [*command, RECORDING, "--set", "dynamics.members=1000000000000"], "of memory")


@pytest.mark.parametrize("method", [name for name in METHODS if find_method(name).pipeline == "offpolicy"])
def test_networks_of_every_method_are_looked_at_first(method: str, tmp_path: Path, capsys: Capture) -> None:
    wide = ["--method", method, "--set", f"{method}.hidden=[1000000, 1000000]"]
    command = ["run", "--dataset", RECORDING, "--output", str(tmp_path / "runs"), *wide]
    refused(capsys, command, f"train-offline: {method}.hidden", "TB", "expected smaller values")
    assert not (tmp_path / "runs").exists()


def test_data_is_looked_at_without_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made_minari(tmp_path)
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((7, 11)), np.zeros((7, 3))
    known = {
        saved(tmp_path): (ENVIRONMENT, ROWS, WIDTH, 1),
        SOURCE: (ENVIRONMENT, EPISODES * STEPS, 4, 1),
        f"d4rl:{tmp_path}/hopper.hdf5": ("Hopper-v5", 7, 11, 3),
    }
    for source, (env_id, rows, width, actions) in known.items():
        found = preview(source)
        assert (found.env_id, found.rows, found.observation_dim, found.action_dim) == (
            env_id,
            rows,
            width,
            actions,
        )
        assert found.bytes == rows * (4 * (2 * width + actions + 1) + 2)
    assert preview(RECORDING).env_steps == 600
    assert preview("minari:not/here-v0") == preview("s3://bucket/x") == Preview()


def test_walks_in_the_models_take_time_too() -> None:
    """4 looks at both policies of 2 tracks, acting in 2 ways, 10 steps from 8 starts; then 20 rounds."""
    sets = [
        "members=2",
        "steps=20",
        "evaluate_every=5",
        "horizon=10",
        "starts=8",
        "rollouts=4",
        "rollout_steps=7",
    ]
    config = load_config(dataset="minari:a/b-v0", overrides=[f"improve.{text}" for text in sets])
    looks, _, walks = find_method("unio4").step("improve-policy").timed(config)
    assert (looks.rows, looks.updates, looks.learns) == (2 * 2 * 2 * 8, 4 * 10, False)
    assert (walks.rows, walks.updates, walks.learns) == (4 * 2, 20 * 7, False)
    assert {looks.hidden, walks.hidden} == {config.dynamics.hidden}


def test_a_recording_that_trains_first_takes_nobody_knows_how_long() -> None:
    for level, steps in (("random", 50), ("medium", None)):
        assert preview(f"collect:Hopper-v5?level={level}&steps=50").env_steps == steps


def test_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 nets, 10 rows, a product of 4 by 8 and one to a single number, once forward, twice back, 50 times."""
    monkeypatch.setattr(estimate, "products_in_a_second", lambda: 1000.0)
    config = load_config(dataset=RECORDING, overrides=["device=cpu"])
    for learns, passes in ((True, 3), (False, 1)):
        step = replace(
            PREPARE,
            kind="thing",
            layers=lambda _: [],
            timed=lambda _, learns=learns: [
                Layers("behavior", members=3, hidden=(4, 8), rows=10, updates=50, learns=learns)
            ],
        )
        found = estimate.estimate_stage(step, config, Preview())
        assert found.seconds == pytest.approx(50 * 3 * 10 * (4 * 8 + 8) * passes / 1000)


def test_one_core_is_timed() -> None:
    """Where numpy may use two, the other one does no part of it unseen."""
    code = """
import time
from unio4_lib.stages import estimate
estimate.PROBE_SECONDS = 0.5
mine, everyone = time.thread_time(), time.process_time()
pace = estimate.products_in_a_second()
print(pace, time.thread_time() - mine, time.process_time() - everyone)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    pace, mine, everyone = map(float, done.stdout.split())
    assert 1e8 < pace < 1e12
    assert everyone < 1.1 * mine


@pytest.mark.parametrize("runner", ["process", "inline"])
def test_a_run_and_its_stages_say_what_they_ask_for(runner: str, tmp_path: Path, capsys: Capture) -> None:
    dataset, output = saved(tmp_path), tmp_path / "runs"
    words = ["run", "--runner", runner, "--dataset", dataset, "--output", str(output), "--tracking", "none"]
    planned = estimated(capsys, dataset, output, *set_arguments())["stages"]
    code, _, err = call(capsys, *words, *set_arguments())
    lines = err.splitlines()
    assert code == 0
    assert lines[0].startswith("the run asks for at least ") and "of memory" in lines[0]
    told = {line.partition(":")[0]: place for place, line in enumerate(lines) if "asks for at least" in line}
    assert set(planned) <= set(told)
    for name in ("clone-behavior", "fit-critics"):
        line = lines[told[name]]
        assert shown(planned[name]["disk_bytes"]) in line and line.endswith(" s")
        assert not any(name in earlier for earlier in lines[: told[name]]), lines
    code, _, err = call(capsys, *words, *set_arguments())
    assert code == 0 and err.splitlines()[0] == "the run has nothing to compute: all of it is there"
    assert "asks for" not in err
