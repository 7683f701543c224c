"""Which simulator an id gets, and what is said about ids that get none."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from unio4_lib.errors import InputError
from unio4_lib.sim import make_sim, registry
from unio4_lib.sim.batch import NativeSim
from unio4_lib.sim.gym import GymSim

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")  # version 4 is asked for on purpose


@pytest.mark.parametrize(
    ("env_id", "backend", "expected"),
    [
        ("Hopper-v5", "auto", NativeSim),
        ("Hopper-v5", "gym", GymSim),
        ("Hopper-v5", "native", NativeSim),
        ("Pendulum-v1", "auto", GymSim),
    ],
)
def test_backend(env_id: str, backend: Any, expected: type) -> None:
    sim = make_sim(env_id, 2, backend=backend)
    assert type(sim) is expected
    observations = sim.reset(0)
    assert observations.shape == (2, sim.observation_dim)
    result = sim.step(np.zeros((2, sim.action_dim)))
    assert result.observations.dtype == result.rewards.dtype == np.float64
    assert result.terminals.dtype == result.timeouts.dtype == np.bool_
    assert sim.action_low.shape == sim.action_high.shape == (sim.action_dim,)
    sim.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_id": "Hoper-v5"}, "'Hoper-v5' is not registered, did you mean 'Hopper-v5'?"),
        ({"env_id": "Hopper-v9"}, "'Hopper-v9' is not registered, did you mean 'Hopper-v"),
        ({"env_id": "#####"}, "'#####' is not registered, see gymnasium.pprint_registry()"),
        ({"env_id": "Pusher-v4"}, "'Pusher-v4' cannot be made: `Pusher-v4` is only supported on"),
        ({"env_id": "Pendulum-v1", "backend": "native"}, 'has no native simulator: use backend="gym"'),
        ({"env_id": "Hopper-v5", "backend": "fast"}, "'fast' is unknown, expected auto, native or gym"),
        ({"env_id": "Hopper-v5", "num_envs": 0}, "num_envs is 0, expected at least 1"),
        ({"env_id": "Hopper-v5", "env_kwargs": {"weight": 1}}, "env_kwargs do not fit 'Hopper-v5'"),
    ],
)
def test_input_errors_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        make_sim(**{"num_envs": 1, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("env_id", ["AdroitHandPen-v1", "AntMaze_UMaze-v5"])
def test_missing_robotics_package_is_named(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # importing it fails
    with pytest.raises(InputError, match=re.escape('pip install "unio4[robotics]"')):
        make_sim(env_id, 1)


def test_a_failed_assertion_of_an_environment_is_not_hidden() -> None:
    def broken() -> None:
        raise AssertionError("a fault of the environment")

    gymnasium.register("unio4-test/Broken-v0", entry_point=broken)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="a fault of the environment"):
        make_sim("unio4-test/Broken-v0", 1)


@pytest.mark.parametrize("backend", ["native", "gym"])
def test_time_limit_can_be_changed(backend: Any) -> None:
    sim = make_sim("HalfCheetah-v5", 1, env_kwargs={"max_episode_steps": 3}, backend=backend)
    sim.reset(0)
    assert [bool(sim.step(np.zeros((1, 6))).timeouts[0]) for _ in range(6)] == [False, False, True] * 2


def test_no_log_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_sim("HalfCheetah-v5", 1)  # its model uses an attribute that MuJoCo warns about
    assert list(tmp_path.iterdir()) == []


def diverge(sim: Any) -> None:
    """Take a step from a state that no simulation survives, in each of two environments."""
    sim.reset(0)
    datas = sim._datas if isinstance(sim, NativeSim) else [env.unwrapped.data for env in sim._envs]
    for data in datas:
        data.qpos[0] = np.inf
    sim.step(np.zeros((2, sim.action_dim)))


@pytest.mark.parametrize("backend", ["native", "gym"])
def test_a_diverging_simulation_is_reported_once_and_not_in_a_file(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_reported_kinds", set())
    sim = make_sim("Hopper-v5", 2, backend=backend)
    with caplog.at_level(logging.DEBUG):
        diverge(sim)
    assert list(tmp_path.iterdir()) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert "MuJoCo: Nan, Inf or huge value in QPOS" in caplog.text


def test_a_handler_of_the_user_stays() -> None:
    heard: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)
    try:
        diverge(make_sim("Hopper-v5", 2))
    finally:
        mujoco.set_mju_user_warning(before)
    assert len(heard) == 2


@pytest.mark.parametrize("backend", ["native", "gym"])
def test_ages_that_are_spread_end_one_after_another(backend: Any) -> None:
    sim = make_sim("HalfCheetah-v5", 4, backend=backend, env_kwargs={"max_episode_steps": 20})
    sim.reset(0)
    assert sim.spread_ages().tolist() == [0, 5, 10, 15]
    ends = [np.flatnonzero(sim.step(np.zeros((4, sim.action_dim))).timeouts).tolist() for _ in range(40)]
    sim.close()
    assert {step + 1: envs for step, envs in enumerate(ends) if envs} == {
        **{5: [3], 10: [2], 15: [1], 20: [0]},
        **{25: [3], 30: [2], 35: [1], 40: [0]},
    }
