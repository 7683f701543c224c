"""The library in a few lines, as a notebook uses it."""

from pathlib import Path

import numpy as np
import pytest
from tiny_runs import SETTINGS, saved_recording

import unio4_lib
from unio4_lib.errors import InputError


def test_five_lines(tmp_path: Path) -> None:
    source = saved_recording(tmp_path)
    rows = unio4_lib.load_dataset(source)
    settings = {name: value for name, value in SETTINGS.items() if name != "seed"}
    trained = unio4_lib.train(source, seed=1, settings=settings, output=tmp_path / "runs", quiet=True)
    policy = unio4_lib.load_policy(trained.folder)
    actions = policy.act(rows.observations[:3])
    assert actions.shape == (3, rows.action_dim)
    np.testing.assert_array_equal(actions, trained.policy.act(rows.observations[:3]))
    assert unio4_lib.score(trained.folder, episodes=4)["mean_return"] == trained.scores["online"]
    assert set(trained.scores) == {"behavior", "start", "offline", "online"}


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown key improve\.stepz; did you mean improve\.steps"):
        unio4_lib.train("minari:x/y-v0", settings={"improve.stepz": 3}, output=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        unio4_lib.trian  # noqa: B018
