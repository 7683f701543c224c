"""What is allowed in a dataset but seldom meant is said; marks that are none are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from broken_inputs import Capture, edited, good_arrays, saved, with_info
from made_minari import SOURCE, STEPS, made_minari, replace_field
from tiny_runs import call, run_arguments

from unio4_lib.data.oddities import oddities
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.sources.grammar import load_transitions

ROWS = 60


def filled(name: str, value: float) -> dict[str, Any]:
    return {name: np.full_like(good_arrays()[name], value)}


def one_column(column: int, value: float) -> dict[str, Any]:
    states = {name: good_arrays()[name].copy() for name in ("observations", "next_observations")}
    for array in states.values():
        array[:, column] = value
    return states


def sparse_rewards() -> dict[str, Any]:
    rewards = np.zeros(ROWS, np.float32)
    rewards[19] = 1
    return {"rewards": rewards}


def huge_state() -> dict[str, Any]:
    arrays = {name: good_arrays()[name].copy() for name in ("observations", "next_observations")}
    arrays["observations"][20, 2] = 1e37  # the first of its episode: nobody's successor
    return arrays


SEEN: dict[str, tuple[dict[str, Any], str]] = {
    "constant observations": (
        filled("observations", 0.5) | filled("next_observations", 0.5),
        "observations never change",
    ),
    "a constant column": (one_column(1, 0.0), "observations: 1 of 4 dimensions never change (1)"),
    "constant actions": (filled("actions", 0.25), "actions never change"),
    "actions at the bound": (
        {"actions": np.where(good_arrays()["actions"] > 0, 3, -3).astype(np.float32)},
        "actions: all are at a bound",
    ),
    "huge observations": (huge_state(), "observations: row 20, dimension 2 is 1e+37"),
    "one huge reward": (edited("rewards", 30, 1e30), "rewards: row 30 is 1e+30"),
    "one outlying reward": (edited("rewards", 30, -1e5), "rewards: row 30 is -1e+05, the median"),
}


@pytest.mark.parametrize("kind", SEEN)
def test_what_is_odd_is_said(kind: str) -> None:
    changed, words = SEEN[kind]
    (note,) = oddities(Transitions(**{**good_arrays(), **changed}))
    assert note.startswith(words)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e37, -3.4e38, 1e17, 1e-45, 0.1])
def test_returns_that_are_all_alike_are_shown(value: float, tmp_path: Path, capsys: Capture) -> None:
    facts = json.loads(
        call(capsys, "dataset", "inspect", saved(tmp_path, **filled("rewards", value)), "--json")[1]
    )
    assert sum(facts["returns"]["histogram"]["counts"]) == ROWS / 20


@pytest.mark.parametrize("changed", [{}, sparse_rewards(), filled("rewards", 0.0)])
def test_ordinary_data_is_not_odd(changed: dict[str, Any]) -> None:
    assert oddities(Transitions(**{**good_arrays(), **changed})) == []


def test_preparing_says_it_and_goes_on(tmp_path: Path, capsys: Capture) -> None:
    source = saved(tmp_path, **edited("rewards", 30, 1e5))
    code, _, err = call(capsys, *run_arguments(source, tmp_path / "runs"))
    assert code == 0, err
    assert err.count("note: rewards: row 30 is 1e+05") == 1


def test_inspect_says_it_and_looks_at_the_environment(tmp_path: Path, capsys: Capture) -> None:
    source = saved(tmp_path, **edited("rewards", 30, 1e30), **with_info(env_id="Hopper-v5"))
    misfit = "observations of size 4, but environment Hopper-v5 has 11"
    code, out, _ = call(capsys, "dataset", "inspect", source)
    assert code == 0
    assert "note: rewards: row 30 is 1e+30" in out
    assert "warning: a run would refuse this dataset" in out and misfit in out
    facts = json.loads(call(capsys, "dataset", "inspect", source, "--json")[1])
    assert facts["notes"][0].startswith("rewards: row 30") and misfit in facts["environment_problem"]


def test_inspect_says_that_the_environment_is_not_here(tmp_path: Path, capsys: Capture) -> None:
    source = saved(tmp_path, **with_info(env_id="Hoper-v5"))
    words = "environment 'Hoper-v5' is not registered, did you mean 'Hopper-v5'?"
    code, out, _ = call(capsys, "dataset", "inspect", source)
    assert code == 0
    assert f"warning: a run would refuse this dataset: {words}" in out
    facts = json.loads(call(capsys, "dataset", "inspect", source, "--json")[1])
    assert facts["environment_problem"].startswith(words)


def test_inspect_finds_no_fault_with_what_fits(tmp_path: Path, capsys: Capture) -> None:
    facts = json.loads(call(capsys, "dataset", "inspect", saved(tmp_path), "--json")[1])
    assert (facts["notes"], facts["environment_problem"]) == ([], None)


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (0.5, "0.5"), (-7, "-7"), (2, "2")])
def test_marks_are_0_or_1(value: float, shown: str, minari_root: Path, tmp_path: Path) -> None:
    marked = np.arange(STEPS) == STEPS - 1
    values = np.where(marked, value, 0.0)
    replace_field(made_minari(minari_root), "terminations", values)
    with pytest.raises(InputError, match=f"terminations in /episode_1: row 19 is {shown}, must be 0 or 1"):
        load_transitions(SOURCE)
    for name in ("terminals", "timeouts"):
        with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
            file["observations"], file["actions"] = np.zeros((STEPS, 11)), np.zeros((STEPS, 3))
            file["rewards"], file["terminals"], file["timeouts"] = np.zeros((3, STEPS))
            file[name][-1] = value
        with pytest.raises(InputError, match=f"{name}: row 19 is {shown}, must be 0 or 1"):
            load_transitions(f"d4rl:{tmp_path / 'hopper.hdf5'}")


def test_marks_of_a_saved_folder_are_0_or_1(
    make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    file = make_transitions((3, 4)).save(tmp_path / "data") / "transitions.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] = 7  # truth values stand last
    file.write_bytes(content)
    with pytest.raises(InputError, match="timeouts has a byte 7, must be 0 or 1"):
        load_transitions(f"transitions:{tmp_path / 'data'}")
