"""What fuzzing has found, one of each kind, so that it stays mended."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from broken_inputs import saved
from made_artifacts import describe, make_folder
from made_minari import SOURCE, made_minari
from made_records import make_run

from unio4_lib.artifacts.manifest import Manifest, canonical_json
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.cli.report import make_report
from unio4_lib.errors import InputError
from unio4_lib.learning.checkpoint import Checkpointer, load_state, save_state
from unio4_lib.nets.files import load_policy, save_policy
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.runs.preflight import check_source
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.tracking import spool
from unio4_lib.tracking.tracker import read_state
from unio4_lib.words import interval_factor

DEEP = "[" * 100_000 + "]" * 100_000


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    save_policy(GaussianPolicy(PolicySpec(1, 4, 1, (8,))), tmp_path / "policy", env_id="Hopper-v5")
    return tmp_path / "policy"


PIPES: dict[str, Callable[[Path], object]] = {
    "ref.json": ArtifactRef.load,
    "state-0.ckpt": load_state,
    "policy.json": lambda path: load_policy(path.parent),
    "target.json": lambda path: spool.Target.load(path.parent),
}


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert "not a plain file" in refused(lambda: PIPES[name](tmp_path / name))


@pytest.mark.parametrize(
    "ends", [[float("nan"), 5.0], [0.0, 10**400], [5.0, 1.0], [1.0], ["a", "b"], [False, True]]
)
def test_a_family_of_no_range_is_refused(ends: list[object], tmp_path: Path) -> None:
    spec = PolicySpec(1, 4, 1, (8,), kind="family", coefficients=(1.0, 5.0))
    save_policy(build_policy(spec), tmp_path, env_id="Hopper-v5")
    told = json.loads((tmp_path / "policy.json").read_text())
    told["spec"]["coefficients"] = ends
    (tmp_path / "policy.json").write_text(json.dumps(told))
    assert "the smaller one first" in refused(lambda: load_policy(tmp_path))


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "ref.json").symlink_to("/dev/zero")
    assert "not a plain file" in refused(lambda: ArtifactRef.load(tmp_path / "ref.json"))


@pytest.mark.parametrize("mark", [b"HEAP", b"TREE", b"SNOD"])
def test_an_hdf5_file_with_broken_insides(
    mark: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    path = made_minari(tmp_path) / "main_data.hdf5"
    path.write_bytes(path.read_bytes().replace(mark, b"XXXX"))
    assert "main_data.hdf5" in refused(lambda: load_transitions(SOURCE))


def test_more_than_a_file_can_hold(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        file.create_dataset("observations", (10**8, 11), "f4", chunks=(1000, 11))
    line = refused(lambda: load_transitions(f"d4rl:{tmp_path}/hopper.hdf5"))
    assert "observations: 4.4 GB cannot be in a file of" in line


def test_what_compresses_well_is_read(tmp_path: Path) -> None:
    rows = 2000
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        for name, shape in (("observations", (rows, 11)), ("actions", (rows, 3)), ("rewards", (rows,))):
            file.create_dataset(name, data=np.zeros(shape, np.float32), compression="gzip")
        for name in ("terminals", "timeouts"):
            file.create_dataset(name, data=np.arange(rows) % 100 == 99 * (name == "timeouts"))
        file["terminals"][...] = False
    assert load_transitions(f"d4rl:{tmp_path}/hopper.hdf5").num_episodes == 20


@pytest.mark.parametrize("source", ["transitions:~nobody-here/x", "d4rl:~nobody-here/hopper.hdf5"])
def test_the_home_of_nobody(source: str) -> None:
    assert "nobody of that name has a home here" in refused(lambda: load_transitions(source))
    assert "nobody of that name has a home here" in refused(lambda: check_source(source))


def test_json_that_is_too_deep(tmp_path: Path) -> None:
    source = saved(tmp_path)
    (tmp_path / "data/info.json").write_text(DEEP)
    assert "info.json: not JSON" in refused(lambda: load_transitions(source))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ref_min_score": "x", "ref_max_score": 1}, "reference score 'x'"),
        ({"action_low": [10**400]}, "'info'"),
    ],
)
def test_odd_numbers_in_the_info_of_a_dataset(changed: dict[str, object], words: str, tmp_path: Path) -> None:
    source = saved(tmp_path)
    path = tmp_path / "data/info.json"
    facts = json.loads(path.read_text())
    facts["info"].update(changed)
    path.write_text(json.dumps(facts))
    assert words in refused(lambda: load_transitions(source))


def test_half_a_character_in_a_manifest(tmp_path: Path) -> None:
    values = json.loads(describe(make_folder(tmp_path / "made")).to_bytes())
    values["files"]["\ud800"] = values["files"].pop("empty.txt")
    data = json.dumps(values).encode()
    assert "here" in refused(lambda: Manifest.from_bytes(data, "here"))
    values["metrics"]["\ud800"] = 1.0
    assert "here" in refused(lambda: Manifest.from_bytes(json.dumps(values).encode(), "here"))
    assert canonical_json({"a": 1})


@pytest.mark.parametrize("state", [[1], {"sequence": "x", "state": 1}, {"sequence": 1}, "x"])
def test_a_checkpoint_of_something_else(state: object, tmp_path: Path) -> None:
    save_state(tmp_path / "state-0.ckpt", state)
    assert "remove the file to start anew" in refused(Checkpointer(0.0, tmp_path).load)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"std_scale": "x"}, "not supported"),
        ({"std_scale": float("nan")}, "std_scale is nan"),
        ({"members": 10**6}, "weights in"),
        ({"hidden": [10**6, 10**6]}, "weights in"),
        ({"observation_dim": True}, "whole numbers of at least 1"),
    ],
)
def test_a_policy_of_odd_shape(changed: dict[str, object], words: str, policy: Path) -> None:
    facts = json.loads((policy / "policy.json").read_text())
    facts["spec"].update(changed)
    (policy / "policy.json").write_text(json.dumps(facts))
    assert words in refused(lambda: load_policy(policy))


def test_odd_lines_and_files_of_a_spool(tmp_path: Path) -> None:
    outbox = spool.Outbox(tmp_path, "run")
    outbox.append("begin", stage=None)
    outbox.close()
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write(f'{{"kind": "metrics"}}\n{{"kind": [1], "time": 3}}\n{DEEP}\n')
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "run.sent")
    (tmp_path / "state.json").write_text("[1")
    assert spool.count_waiting(tmp_path) == 1
    assert [path.name for path in spool.outboxes(tmp_path)] == ["run.jsonl"]
    assert read_state(tmp_path) == {}


def test_an_interval_of_absurdly_many_is_soon_there() -> None:
    assert interval_factor(2**63) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize("name", ["summary.json", "decisions.json"])
def test_a_report_of_numbers_that_are_none(name: str, tmp_path: Path) -> None:
    record = make_run()
    run = tmp_path / "run"
    run.mkdir()
    whole = record.summary.to_json()
    summary = {**whole, "dataset": {**whole["dataset"], "mean_return": 10**400}}
    (run / "summary.json").write_text(json.dumps(summary))
    if name == "decisions.json":
        (run / "summary.json").write_text(json.dumps(whole))
        (run / "decisions.json").write_text(DEEP)
    assert str(tmp_path) in refused(
        lambda: make_report([run], None, show=False, video=False, frames=2, size=64)
    )
