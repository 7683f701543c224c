"""Metadata that is not in order: loading says so in one line, and the list shows the other datasets."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_inputs import Capture, refused
from made_minari import SOURCE, SPEC, STEPS, made_minari, replace_field
from tiny_runs import call

from unio4_lib.sources.minari_source import load_minari


def spec(**changed: Any) -> dict[str, str]:
    return {"env_spec": json.dumps({**SPEC, **changed})}


def box(**changed: Any) -> str:
    entry = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-3.0], "high": [3.0]}
    return json.dumps({**entry, **changed})


DEEP = "[" * 100_000 + "]" * 100_000
DEEP_SPACE = '{"type":"Tuple","subspaces":[' * 2000 + box() + "]}" * 2000
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "steps NaN": ({"total_steps": float("nan")}, "total_steps is nan, must be a whole number"),
    "steps inf": ({"total_steps": float("inf")}, "total_steps is inf"),
    "steps huge": ({"total_steps": 10**400}, "total_steps is 1000"),
    "steps beyond memory": ({"total_steps": 10**15}, "of memory"),
    "steps a fraction": ({"total_steps": 59.5}, "total_steps is 59.5"),
    "steps negative": ({"total_steps": -1}, "total_steps is -1"),
    "steps true": ({"total_steps": True}, "total_steps is True"),
    "steps text": ({"total_steps": "60"}, "total_steps is 60, must be"),
    "steps a list": ({"total_steps": [60]}, "total_steps is [60]"),
    "episodes NaN": ({"total_episodes": float("nan")}, "total_episodes is nan"),
    "episodes huge": ({"total_episodes": 10**12}, "must be at most total_steps, which is 60"),
    "episodes an object": ({"total_episodes": {}}, "total_episodes is {}"),
    "format a list": ({"data_format": ["hdf5"]}, "data_format of made/set-v0 is ['hdf5']"),
    "format an object": ({"data_format": {"a": 1}}, "hdf5 and arrow can be read"),
    "spec a list": ({"env_spec": "[1]"}, "env_spec is [1], must be a JSON object"),
    "spec a number": ({"env_spec": "7"}, "env_spec is 7"),
    "spec no text": ({"env_spec": 7}, "env_spec is not JSON"),
    "spec an object, not text": ({"env_spec": SPEC}, "env_spec is not JSON"),
    "spec deep": ({"env_spec": DEEP}, "env_spec is not JSON"),
    "id a number": (spec(id=7), "env_spec: id is 7, must be text"),
    "id a list": (spec(id=["Hopper-v5"]), "env_spec: id is ['Hopper-v5']"),
    "id empty": (spec(id=""), "no env_spec; add ?env="),
    "kwargs a list": (spec(kwargs=[1]), "env_spec: kwargs is [1], must be an object"),
    "kwargs text": (spec(kwargs="ab"), "env_spec: kwargs is ab"),
    "kwargs NaN": (spec(kwargs={"a": float("nan")}), "env_kwargs"),
    "limit text": (spec(max_episode_steps="many"), "max_episode_steps is many"),
    "limit NaN": (spec(max_episode_steps=float("nan")), "max_episode_steps is nan"),
    "limit an object": (spec(max_episode_steps={"a": 1}), "max_episode_steps is {'a': 1}"),
    "limit negative": (spec(max_episode_steps=-5), "max_episode_steps is -5"),
    "score text": ({"ref_min_score": "low", "ref_max_score": 1}, "ref_min_score is low"),
    "score a list": ({"ref_min_score": 0, "ref_max_score": [1]}, "ref_max_score is [1]"),
    "score NaN": ({"ref_min_score": float("nan"), "ref_max_score": 1}, "ref_min_score is nan"),
    "score huge": ({"ref_min_score": 0, "ref_max_score": 10**400}, "ref_max_score is 1000"),
    "scores equal": ({"ref_min_score": 1, "ref_max_score": 1}, "must be smaller than ref_max_score 1"),
    "space deep": ({"observation_space": DEEP_SPACE}, "observation_space cannot be read"),
    "space deep JSON": ({"observation_space": DEEP}, "observation_space cannot be read"),
    "space a list": ({"observation_space": "[1]"}, "observation_space cannot be read"),
    "space of no kind": ({"observation_space": '{"type": ["Box"]}'}, "observation_space cannot be read"),
    "space of another dtype": ({"action_space": box(dtype="zebra")}, "action_space cannot be read"),
    "space of huge shape": ({"action_space": box(shape=[10**12])}, "action_space cannot be read"),
    "space of negative shape": ({"action_space": box(shape=[-1])}, "action_space cannot be read"),
    "space of no dimension": ({"action_space": box(shape=[0], low=[], high=[])}, "0 dimensions"),
    "space of texts": ({"action_space": box(dtype="S3", low=["a"], high=["b"])}, "action_space"),
    "bounds NaN": ({"action_space": box(low=[float("nan")])}, "action"),
    "bounds infinite": ({"action_space": box(high=[float("inf")])}, "both must be finite"),
    "bounds swapped": ({"action_space": box(low=[4.0])}, "action"),
    "states too many": (
        {"observation_space": '{"type": "Discrete", "n": 1000000000000000, "start": 0}'},
        "of memory",
    ),
    "states none": ({"observation_space": '{"type": "Discrete", "n": 0, "start": 0}'}, "observation_space"),
    "states of text": ({"observation_space": '{"type": "Discrete", "n": "a", "start": 0}'}, "cannot be read"),
    "no keys in a space": ({"observation_space": '{"type": "Dict", "subspaces": {}}'}, "0 dimensions"),
}
# Seen only when all rows are read; the list reads returns alone.
LISTED = {"steps beyond memory", "states too many", "format a list", "format an object", "kwargs NaN"}
LISTED |= {"bounds infinite", "bounds NaN"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BROKEN)
def test_metadata(kind: str, tmp_path: Path, capsys: Capture, minari_root: Path) -> None:
    changes, words = BROKEN[kind]
    made_minari(minari_root, **changes)
    refused(capsys, ["dataset", "inspect", SOURCE], SOURCE, words)


@pytest.mark.filterwarnings("error")
def test_a_return_beyond_all_numbers_is_one_line_of_the_list(minari_root: Path, capsys: Capture) -> None:
    replace_field(made_minari(minari_root), "rewards", np.full(STEPS, 1e308))
    code, _, err = call(capsys, "dataset", "list")
    assert (code, err) == (0, f"{SOURCE}: rewards: the mean return is inf, must be a finite number\n")


def test_metadata_of_no_use_does_no_harm(minari_root: Path) -> None:
    made_minari(minari_root)
    digest = load_minari("made/set-v0").digest()
    made_minari(minari_root, dataset_size="big", author=7, description={"a": float("nan")}, total_steps=60.0)
    assert load_minari("made/set-v0").digest() == digest


def copied(root: Path, name: str, **changes: Any) -> None:
    made_minari(root, **changes)
    (root / "made").rename(root / name)


def test_odd_datasets_do_not_keep_the_list_from_the_others(minari_root: Path, capsys: Capture) -> None:
    for number, (changes, _) in enumerate(BROKEN.values()):
        copied(minari_root, f"b{number:02}", **changes)
    copied(minari_root, "good")
    code, out, err = call(capsys, "dataset", "list", "--json")
    assert code == 0, err
    *rows, good = json.loads(out, parse_constant=pytest.fail)
    assert good["problem"] is None and good["episodes"] == 3
    unseen = {kind for kind, row in zip(BROKEN, rows, strict=True) if row["problem"] is None}
    assert unseen <= LISTED
    code, out, err = call(capsys, "dataset", "list")
    assert (code, len(err.splitlines())) == (0, len(BROKEN) - len(unseen))
    assert "minari:good/set-v0" in out


@pytest.mark.parametrize("name", ["metadata.json", "main_data.hdf5"])
def test_a_pipe_is_not_waited_for(name: str, minari_root: Path, capsys: Capture) -> None:
    path = made_minari(minari_root) / name
    path.unlink()
    os.mkfifo(path)
    refused(capsys, ["dataset", "inspect", SOURCE], name)
    assert call(capsys, "dataset", "list")[0] == 0
