"""The termination rules against the simulator's own flags."""

import numpy as np
import pytest
import torch

from unio4_lib.sim import make_sim
from unio4_lib.sim.batch import NativeSim
from unio4_lib.sim.terminations import known_termination

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")  # version 4 is asked for on purpose


@pytest.mark.parametrize(
    ("env_id", "falls_expected"),
    [
        ("Hopper-v5", 50),
        ("Hopper-v4", 50),
        ("Walker2d-v5", 50),
        ("InvertedPendulum-v5", 50),
        ("InvertedDoublePendulum-v5", 50),
        ("InvertedDoublePendulum-v4", 50),
        ("Ant-v5", 3),
        ("Humanoid-v5", 20),
        ("HalfCheetah-v5", 0),
        ("Swimmer-v5", 0),
        ("Reacher-v5", 0),
        ("Pusher-v5", 0),
    ],
)
def test_agrees_with_the_simulator(env_id: str, falls_expected: int) -> None:
    rule = known_termination(env_id)
    assert rule is not None
    sim = make_sim(env_id, 20)
    sim.reset(0)
    rng, agree, falls = np.random.default_rng(0), [], 0
    for _ in range(110):
        result = sim.step(rng.uniform(sim.action_low, sim.action_high, (20, sim.action_dim)))
        guess = rule(torch.as_tensor(result.next_observations, dtype=torch.float32)).numpy()
        agree.append(guess == result.terminals)
        falls += int(result.terminals.sum())
    assert np.size(agree) >= 2000
    assert falls >= falls_expected
    assert np.mean(agree) >= 0.999
    assert (falls > 0) == (falls_expected > 0)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"])
def test_limits_are_those_of_the_environment(env_id: str) -> None:
    """States drawn around every limit, also those that random actions never reach."""
    rule = known_termination(env_id)
    assert rule is not None
    sim = NativeSim(env_id, 1)
    sim.reset(0)
    rng = np.random.default_rng(0)
    now = {name: np.repeat(values, 4000, axis=0) for name, values in sim._now.items()}
    now["qpos"][:, 1] = rng.uniform(-0.3, 2.2, 4000)  # height of planar runners
    now["qpos"][:, 2] = rng.uniform(-1.3, 2.2, 4000)  # their angle, height of the others
    if env_id == "Hopper-v5":  # its angle limit is narrow
        now["qpos"][:, 2] /= 5
        now["qpos"][:, 3] = rng.uniform(-102, 102, 4000)
    terminals = sim._task.judge(now, now, np.zeros((4000, sim.action_dim)))[1]
    guess = rule(torch.as_tensor(sim._task.observe(now))).numpy()
    assert 0.1 < terminals.mean() < 0.97
    np.testing.assert_array_equal(guess, terminals)


def test_hopper_checks_both_signs_and_every_coordinate() -> None:
    rule = known_termination("hopper")
    assert rule is not None
    rows = torch.zeros(6, 11)
    rows[:, 0] = 1.2
    rows[1, 0] = 0.69
    rows[2, 1] = -0.21
    rows[3, 4] = -101.0  # the known slip is to test the upper bound only
    rows[4, 10] = 101.0
    rows[5, 7] = torch.nan
    assert rule(rows).tolist() == [False, True, True, True, True, True]


def test_pen_ends_when_dropped() -> None:
    rule = known_termination("AdroitHandPen-v1")
    assert rule is not None
    rows = torch.full((2, 45), 1.0)
    rows[1, 26] = 0.07
    assert rule(rows).tolist() == [False, True]


def test_shapes_are_kept() -> None:
    for env_id in ("Hopper-v5", "HalfCheetah-v5"):
        rule = known_termination(env_id)
        assert rule is not None
        flags = rule(torch.zeros(4, 3, 17))
        assert flags.shape == (4, 3) and flags.dtype == torch.bool


def test_unknown_tasks_have_no_rule() -> None:
    assert known_termination("Pendulum-v1") is None
