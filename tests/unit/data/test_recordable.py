"""What `dataset collect` refuses: one line before the training, exit 2, and nothing is left behind."""

import errno
import json
import os
from pathlib import Path

import pytest
from broken_inputs import Capture, refused
from tiny_runs import call, run_arguments

from unio4_lib.errors import InputError
from unio4_lib.nets.files import save_policy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.sources import recording_file
from unio4_lib.sources.collect_spec import CollectSpec
from unio4_lib.sources.recordable import check_recordable

ODD = "odd_environments:Odd-v0"
ODDITIES = {
    "reward": (ODD, ["fault=reward"], "gave nan as reward"),
    "observation": (ODD, ["fault=observation"], "gave nan as observation"),
    "function": ("odd_environments:Lambda-v0", [], "cannot be written down"),
    "no such keyword": (ODD, ["weight=1"], "env_kwargs do not fit"),
    "keyword that fails when made": ("Hopper-v5", ["frame_skip=0"], "ZeroDivisionError"),
    "file that is not there": ("Hopper-v5", ["xml_file=/nowhere.xml"], "/nowhere.xml does not exist"),
    "keyword that fails at the first step": ("Hopper-v5", ["healthy_z_range=3"], "at its first step"),
    "keyword that fails at reset": ("Hopper-v5", ["reset_noise_scale=-1"], "at its first step"),
    "limit of text": (ODD, ["max_episode_steps=abc"], "max_episode_steps is 'abc', must be a whole number"),
    "limit of nothing": (ODD, ["max_episode_steps=0"], "max_episode_steps is 0"),
    "limit beyond all": (ODD, [f"max_episode_steps={10**20}"], "max_episode_steps is 1000"),
    "limit beyond all, native": ("Hopper-v5", [f"max_episode_steps={10**20}"], "max_episode_steps is 1000"),
    "wrong name": ("Hoper-v5", [], "did you mean 'Hopper-v5'?"),
    "name of no module": ("no.such:Odd-v0", [], "module 'no.such' cannot be imported"),
    "empty module": (":Hopper-v5", [], "module '' cannot be imported"),
    "relative module": (".such:Odd-v0", [], "module '.such' cannot be imported"),
    "long name": ("a" * 300, [], "300 bytes in one name"),
    "long names": ("a/" * 3000, [], "6000 characters in all; at most 255 and 3000"),
}


@pytest.mark.parametrize("level", ["random", "medium"])
@pytest.mark.parametrize("kind", ODDITIES)
def test_environment(kind: str, level: str, capsys: Capture, minari_root: Path) -> None:
    env_id, kwargs, words = ODDITIES[kind]
    options = [part for kwarg in kwargs for part in ("--env-kwarg", kwarg)]
    arguments = ["dataset", "collect", env_id, "--level", level, "--steps", "160", "--train-steps", "2048"]
    refused(capsys, [*arguments, *options], words)
    assert list(minari_root.iterdir()) == []


def test_more_steps_than_memory() -> None:
    with pytest.raises(InputError, match=r"collect: steps: .* GB, but this machine has"):
        check_recordable(CollectSpec("Hopper-v5", steps=10**14))


@pytest.mark.parametrize("target", ["nan", "inf", "-inf"])
def test_target(target: str, capsys: Capture) -> None:
    refused(capsys, ["dataset", "collect", f"collect:Hopper-v5?target={target}"], "must be a finite number")


@pytest.mark.parametrize("kind", ["minari", "d4rl", "transitions"])
def test_long_names_of_sources(kind: str, capsys: Capture) -> None:
    refused(capsys, ["dataset", "inspect", f"{kind}:{'é' * 130}"], "260 bytes in one name")


def collect_a_little(*options: str) -> list[str]:
    return ["dataset", "collect", "InvertedPendulum-v5", "--level", "random", "--steps", "200", *options]


@pytest.mark.parametrize("free", [0, 1_100_000])
def test_full_disk(free: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture, minari_root: Path) -> None:
    """Before the work where not even a little fits, else before HDF5 begins to write."""

    def fallocate(handle: int, start: int, size: int) -> None:
        if size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recording_file.os, "posix_fallocate", fallocate)
    refused(capsys, collect_a_little(), str(minari_root), "No space left on device", "MINARI_DATASETS_PATH")
    assert list(minari_root.iterdir()) == []


def test_what_is_reserved_is_enough(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, minari_root: Path
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(recording_file, "reserve", lambda root, size=0: sizes.append(size))
    assert call(capsys, *collect_a_little())[0] == 0
    (file,) = minari_root.rglob("main_data.hdf5")
    assert file.stat().st_size < sizes[-1] < 2_000_000 + file.stat().st_size


def test_a_place_that_is_no_folder(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "datasets"))
    refused(capsys, collect_a_little(), "cannot be written there", "MINARI_DATASETS_PATH")


def test_an_environment_that_prints_does_not_break_json(capsys: Capture, tmp_path: Path) -> None:
    arguments = [
        "dataset",
        "collect",
        ODD,
        "--level",
        "random",
        "--steps",
        "60",
    ]
    code, out, err = call(capsys, *arguments, "--env-kwarg", "fault=prints", "--json")
    assert code == 0 and "a new episode" in err
    source = json.loads(out)["source"]
    facts = json.loads(call(capsys, "dataset", "inspect", source, "--json")[1])
    assert (facts["transitions"], facts["environment_problem"]) == (60, None)
    root = str(tmp_path / "artifacts")
    stage = ["stage", "prepare-dataset", "--dataset", source, "--artifact-root", root, "--tracking", "none"]
    code, out, err = call(capsys, *stage, "--json")
    assert code == 0 and "made" in err.splitlines()
    assert json.loads(out)["ref"]["kind"] == "dataset"


def test_an_environment_that_prints_does_not_break_the_json_of_evaluate(
    capsys: Capture, tmp_path: Path
) -> None:
    policy = GaussianPolicy(PolicySpec(1, 2, 1, (8,)))
    save_policy(policy, tmp_path / "policy", env_id=ODD, env_kwargs={"fault": "prints"})
    code, out, err = call(capsys, "evaluate", str(tmp_path / "policy"), "--episodes", "2", "--json")
    assert code == 0 and {"made", "a new episode"} <= set(err.splitlines())
    assert json.loads(out)["episodes"] == 2


def test_what_a_run_prints_does_not_break_its_json(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_method(*_: object, **__: object) -> dict[str, str]:
        print("made")  # noqa: T201
        return {"run_id": "mine"}

    monkeypatch.setattr("unio4_lib.cli.run.run_method", run_method)
    arguments = run_arguments("collect:Hopper-v5?level=random&steps=20", tmp_path / "runs")
    code, out, err = call(capsys, *arguments, "--json")
    assert (code, json.loads(out), err) == (0, {"run_id": "mine"}, "made\n")
