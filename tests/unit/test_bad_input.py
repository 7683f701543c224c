"""Settings, options, places and policies that a user may get wrong: one line, exit code 2, no mess.

Datasets are in test_bad_data.py.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_inputs import (
    ENVIRONMENT,
    WIDTH,
    Capture,
    edited,
    refused,
    refused_run,
    saved,
)
from tiny_runs import call, run_arguments

import unio4_lib
from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config, method_of
from unio4_lib.nets.files import load_policy, save_policy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.stages import stored
from unio4_lib.stages.sizes import check_sizes

SETTINGS = {
    "unknown key": ("improve__stps", 3, ["unknown key improve.stps", "did you mean improve.steps?"]),
    "unknown section": ("improvement__steps", 3, ["improvement.steps", "did you mean improve.steps?"]),
    "section": ("improve", 3, ["improve is a section", "expected one of its keys"]),
    "wrong type": ("improve__steps", "many", ["improve.steps is 'many'", "a whole number >= 1"]),
    "out of range": ("improve__clip", 1.5, ["improve.clip is 1.5", "> 0 and < 1"]),
    "no such choice": ("improve__acting", "luck", ["improve.acting is 'luck'", "both, mean"]),
    "entry of a list": ("behavior__hidden", [64, 0], ["behavior.hidden entry 1 is 0", ">= 1"]),
    "one episode": ("evaluate__episodes", 1, ["evaluate.episodes is 1", ">= 2"]),
    "endless evaluation": (
        "evaluate__episodes",
        10**12,
        ["evaluate.episodes is 1000000000000", "<= 1e+06"],
    ),
    "negative seed": ("seed", -1, ["seed is -1", ">= 0"]),
    "elites beyond members": (
        "dynamics__elites",
        9,
        ["dynamics.elites is 9", "dynamics.members, which is 3"],
    ),
    "gate that never looks": ("improve__evaluate_every", 99, ["improve.evaluate_every is 99", "which is 20"]),
    "batch beyond rollout": (
        "finetune__minibatch_size",
        999,
        ["finetune.minibatch_size is 999", "which is 128"],
    ),
    "all warm-up": ("finetune__warmup_steps", 600, ["finetune.warmup_steps is 600", "which is 600"]),
    "seed of evaluation": ("evaluate__seed", 1, ["evaluate.seed is 1", "another number than seed"]),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_setting(kind: str, tmp_path: Path, capsys: Capture) -> None:
    name, value, words = SETTINGS[kind]
    line = refused_run(capsys, tmp_path, saved(tmp_path), *words, **{name: value})
    assert f"error: --set {name.replace('__', '.')}=" in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "improve.steps"], ["--set improve.steps: expected key=value", "--set improve.steps=2000"]),
        (["--set", "improve.steps=[1"], ["--set improve.steps=[1:", "line 1"]),
        (["--preset", "fast"], ["--preset fast: no such preset", "quick, standard, paper"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml: no such file", "YAML"]),
        (["--config", "."], [".: cannot be read", "directory"]),
        (["--seed", "one"], ["'--seed'", "valid integer", "unio4 run --help"]),
        (["--outptu", "x"], ["No such option", "--output", "unio4 run --help"]),
    ],
    ids=["no value", "no YAML", "preset", "no file", "folder", "seed", "option"],
)
def test_option(more: list[str], words: list[str], tmp_path: Path, capsys: Capture) -> None:
    refused(capsys, [*run_arguments(saved(tmp_path), tmp_path / "runs"), *more], *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("improve: {steps: 3", ["line 1", "expected ',' or '}'"]),
        ("seed: 1\nseed: 2\n", ["line 2", "key seed is given twice"]),
        ("improve:\n  steps: 3\n  steps: 4\n", ["line 3", "key steps is given twice"]),
        ("- seed\n", ["found a list", "keys and values"]),
        ("improve: 3\n", ["improve is a section"]),
        ("improve:\n  stepps: 3\n", ["unknown key improve.stepps", "did you mean improve.steps?"]),
        ("behavior:\n  steps: '40'\n", ["behavior.steps is '40'", "a whole number"]),
        ("seed: \xff\n", ["not UTF-8"]),
    ],
    ids=["syntax", "twice", "twice inside", "list", "no section", "unknown key", "text", "encoding"],
)
def test_config_file(text: str, words: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("latin-1"))
    output = tmp_path / "runs"
    command = ["run", "--config", str(path), "--dataset", saved(tmp_path), "--output", str(output)]
    refused(capsys, command, str(path), *words)
    assert not output.exists()


def test_no_dataset_at_all(tmp_path: Path, capsys: Capture) -> None:
    refused(capsys, ["run", "--output", str(tmp_path / "runs")], "dataset is not set", "--dataset")


def test_no_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused_run(capsys, tmp_path, saved(tmp_path), "device is cuda", "auto or cpu", device="cuda")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_output_is_a_file(below: str, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "runs"
    output.write_text("mine")
    arguments = [*run_arguments("collect:Hopper-v5", output / below), "--quiet"]
    refused(capsys, arguments, str(output / below), "cannot be written", "choose another --output")
    assert output.read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_output_that_cannot_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    make = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(tmp_path / "runs"):  # root may write anywhere: the system has to be played
            raise OSError(number, os.strerror(number), str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    # Found before hours of collecting: the source asks for the largest budget there is.
    words = (str(tmp_path / "runs"), os.strerror(number), "choose another --output")
    refused_run(capsys, tmp_path, "collect:Hopper-v5?level=expert", *words)


@pytest.mark.parametrize("name", [".config.yaml.new", ".summary.json.new", "policy.json"])
def test_full_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    write = Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if path.name == name:
            write(path, "half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, *arguments, **options)

    source = saved(tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    output = tmp_path / "runs"
    words = ("no space left on the disk", name, "--cache" if name == "policy.json" else "--output")
    refused(capsys, [*run_arguments(source, output), "--quiet"], *words)
    whole_or_nothing(output, has_policies=name == ".summary.json.new")


def test_full_disk_in_native_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(policy: object, folder: Path, **_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "policy.safetensors").write_text("half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(stored, "save_policy", full)
    refused(
        capsys, [*run_arguments(saved(tmp_path), tmp_path / "runs"), "--quiet"], "no space left on the disk"
    )
    whole_or_nothing(tmp_path / "runs", has_policies=False)


def whole_or_nothing(output: Path, *, has_policies: bool) -> None:
    """Policies that were saved stay and can be read, in a folder that says that it failed."""
    folders = [path for path in output.iterdir() if path.name != "artifacts"]
    for path in folders:
        assert path.name != "latest"
        assert {inner.name for inner in path.iterdir()} <= {
            "config.yaml",
            "failed.txt",
            "policies",
            "artifacts",
        } | ({"metrics.json", "facts.json", "decisions.json"} if has_policies else set())
        assert "o space left" in (path / "failed.txt").read_text()
        for policy in (path / "policies").glob("*"):
            load_policy(policy)
    assert has_policies == any((path / "policies").is_dir() for path in folders)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that fits its environment."""
    folder = tmp_path / "policy"
    save_policy(GaussianPolicy(PolicySpec(1, WIDTH, 1, (8,))), folder, env_id=ENVIRONMENT, env_kwargs={})
    return folder


def change_facts(policy: Path, **changed: Any) -> None:
    path = policy / "policy.json"
    facts = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({name: value for name, value in facts.items() if value is not None}))


def cut(policy: Path, name: str) -> None:
    (policy / name).write_bytes((policy / name).read_bytes()[:50])


POLICIES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no policy": (
        lambda policy: (policy / "policy.json").unlink(),
        ["no policy here", "policy.json is missing"],
    ),
    "no weights": (
        lambda policy: (policy / "policy.safetensors").unlink(),
        ["no policy here", "policy.safetensors"],
    ),
    "cut weights": (lambda policy: cut(policy, "policy.safetensors"), ["cannot be read", "policy of unio4"]),
    "cut JSON": (lambda policy: cut(policy, "policy.json"), ["cannot be read", "policy of unio4"]),
    "no environment": (
        lambda policy: change_facts(policy, env_id=None),
        ["does not say its environment", "env_id"],
    ),
    "unknown environment": (
        lambda policy: change_facts(policy, env_id="Nowhere-v0"),
        ["environment 'Nowhere-v0' is not registered"],
    ),
    "another environment": (
        lambda policy: change_facts(policy, env_id="Hopper-v5"),
        ["the policy has observations of size 4", "Hopper-v5 has 11"],
    ),
    "another shape": (
        lambda policy: change_facts(policy, spec=PolicySpec(1, 9, 1, (8,)).to_json()),
        ["cannot be read", "size mismatch"],
    ),
    "environment of a wrong kind": (lambda policy: change_facts(policy, env_id=5), ["env_id is 5", "a text"]),
    "arguments of a wrong kind": (
        lambda policy: change_facts(policy, env_kwargs=[1]),
        ["env_kwargs [1]", "an object"],
    ),
    "a list": (lambda policy: (policy / "policy.json").write_text("[]"), ["cannot be read"]),
    "no folder": (shutil.rmtree, ["no such folder", "runs/latest"]),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_policy(kind: str, policy: Path, capsys: Capture) -> None:
    spoil, words = POLICIES[kind]
    command = ["evaluate", str(policy), "--episodes", "2", "--quiet"]
    assert call(capsys, *command)[0] == 0
    spoil(policy)
    refused(capsys, command, str(policy), *words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--episodes", "1"], ["--episodes", "greater than or equal to 2"]),
        (["--episodes", "1000000000000"], ["--episodes", "less than or equal to 1000000"]),
        (["--seed", "-3"], ["--seed", "greater than or equal to 0"]),
    ],
)
def test_options_of_evaluate(more: list[str], words: list[str], policy: Path, capsys: Capture) -> None:
    refused(capsys, ["evaluate", str(policy), *more], *words, "unio4 evaluate --help")


@pytest.mark.parametrize("more", [[], ["--quiet"], ["--json"], ["--quiet", "--json"]], ids=" ".join)
def test_a_module_of_a_policy_is_named_before_it_runs(
    more: list[str], policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "some_robot.py").write_text("raise ImportError('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_facts(policy, env_id="some_robot:Robot-v0")
    code, out, err = call(capsys, "evaluate", str(policy), "--episodes", "2", *more)
    assert (code, out) == (2, "")
    said, failed = err.splitlines()
    assert said == "note: imports and runs module some_robot, which policy.json names"
    assert "it ran" in failed


def test_a_notebook_hears_of_a_module_too(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other_robot.py").write_text("raise ImportError('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_facts(policy, env_id="other_robot:Robot-v0")
    with pytest.raises(InputError, match="it ran"):
        unio4_lib.score(policy)
    assert [record.getMessage() for record in caplog.records] == [
        "note: imports and runs module other_robot, which policy.json names"
    ]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("", ["a folder; expected the name of a file"]),
        ("none/x.onnx", ["no folder", "expected one that exists"]),
    ],
)
def test_places_of_an_export(
    place: str, words: list[str], policy: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = str(tmp_path / place)
    refused(capsys, ["export", str(policy), "--output", target, "--format", "torchscript"], target, *words)


HUGE = 10**12


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"behavior.hidden": [10**6, 10**6]}, ["clone-behavior: behavior.members and hidden", "TB"]),
        (
            {"behavior.batch_size": HUGE},
            ["clone-behavior: behavior.members and hidden, with batch_size", "PB"],
        ),
        ({"critics.q_hidden": [10**6, 10**6]}, ["fit-critics: critics.q_hidden"]),
        ({"dynamics.members": HUGE}, ["fit-dynamics: dynamics.members and hidden"]),
        ({"improve.starts": HUGE}, ["improve-policy: improve.starts"]),
        ({"finetune.num_envs": HUGE}, ["finetune-online: finetune.num_envs ask for at least 4.1 PB"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_memory_can_hold(
    changed: dict[str, Any], words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    """Before anything is allocated, or recorded, or written."""
    sets = [part for name, value in changed.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    for runner in ("inline", "process"):
        command = [
            "run",
            "--runner",
            runner,
            "--dataset",
            "collect:Hopper-v5",
            "--output",
            str(tmp_path / "runs"),
        ]
        refused(capsys, [*command, *sets], *words, "of memory, there are", "expected smaller values")
    assert not (tmp_path / "runs").exists()


def test_usual_sizes_fit_into_a_small_machine() -> None:
    for preset in ("quick", "standard", "paper"):
        config = load_config(preset, dataset="minari:mujoco/hopper/medium-v0")
        check_sizes(config, method_of(config).steps, available=2 * 10**9)


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden"])
def test_names_of_sweeps(name: str, tmp_path: Path, capsys: Capture) -> None:
    command = ["sweep", "--dataset", "minari:x/y-v0", "--name", name, "--output", str(tmp_path / "runs")]
    refused(capsys, command, f"--name {name}: expected letters, digits")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["dataset", "inspect", "collect:Hopper-v5?target=nan"],
            ["target=nan", "must be a finite number, such as 1500"],
        ),
        (["dataset", "inspect", "d4rl:x.hdf5?action_low=inf"], ["action_low=inf", "must be a finite number"]),
        (["dataset", "inspect", "minari:no/such-v0"], ["minari:no/such-v0", "no dataset is here"]),
        (["dataset", "collect", ENVIRONMENT, "--level", "great"], ["level=great", "must be one of"]),
        (["dataset", "collect", ENVIRONMENT, "--env-kwarg", "x"], ["--env-kwarg x", "name=value"]),
        (["config", "show", "--set", "seed=-1", "--dataset", "minari:x"], ["seed is -1", ">= 0"]),
    ],
)
def test_other_commands(arguments: list[str], words: list[str], capsys: Capture) -> None:
    refused(capsys, arguments, *words)


def test_the_same_from_a_shell(tmp_path: Path) -> None:
    """A process of its own: nothing of a library's chatter and no traceback reaches the terminal."""
    source = saved(tmp_path, **edited("rewards", 7, np.nan))
    command = [sys.executable, "-m", "unio4_lib.cli", *run_arguments(source, tmp_path / "runs")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    *before, last = ended.stderr.splitlines()
    assert last == f"error: dataset {source}: rewards: row 7 is nan, must be a finite number"
    assert [line.split(" asks for ")[0] for line in before] == ["the run", "prepare-dataset:"]
    assert list((tmp_path / "runs").iterdir()) == []
