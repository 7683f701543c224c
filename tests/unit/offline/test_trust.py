"""Whether the models may judge: clones in them beside what was recorded."""

from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import following, make_data, make_transitions

from unio4_lib.judging.trust import Trust, judge_models, whole_returns
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import row_weights


def episodes_of(returns: list[float], *, length: int = 4, fell: bool = True) -> OfflineData:
    """Equal rewards in every row; all fall in the end, or all are cut off."""
    rewards = np.repeat(np.array(returns) / length, length)
    ends = np.arange(len(rewards)) % length == length - 1
    states = np.linspace(-1, 1, len(rewards))[:, None]
    nowhere = np.zeros_like(ends)
    terminals, timeouts = (ends, nowhere) if fell else (nowhere, ends)
    return make_data(make_transitions(states, states, rewards, following(states), terminals, timeouts))


def judge(data: OfflineData, modeled: list[float], share: float = 0.6, **values: Any) -> Trust | None:
    names = values.pop("names", ["uniform"] * len(modeled))
    return judge_models(data, names, torch.tensor(modeled), share, **{"horizon": 100, **values})


def three_episodes() -> OfflineData:
    """4 steps to a fall, 3 steps cut off, 12 steps cut off."""
    lengths, ended = [4, 3, 12], [True, False, False]
    rows = sum(lengths)
    terminals, timeouts = np.zeros(rows, bool), np.zeros(rows, bool)
    for last, fell in zip(np.cumsum(lengths) - 1, ended, strict=True):
        (terminals if fell else timeouts)[last] = True
    values = np.arange(rows, dtype=np.float64)
    flat = np.zeros((rows, 1))
    return make_data(make_transitions(flat, flat, values, flat, terminals, timeouts))


def test_returns_of_whole_episodes_are_those_of_a_plain_loop_and_a_cut_one_is_unknown() -> None:
    returns, known = whole_returns(three_episodes(), 10)
    expected = [sum(range(4)), sum(range(4, 7)), sum(range(7, 17))]
    assert returns.tolist() == expected
    assert known.tolist() == [True, False, True]
    assert whole_returns(three_episodes(), 12)[1].tolist() == [True, False, True]
    assert whole_returns(three_episodes(), 13)[1].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("recorded", "modeled", "trusted"),
    [
        (100.0, 100.0, True),
        (100.0, 61.0, True),
        (100.0, 59.0, False),
        (100.0, 166.0, True),
        (100.0, 168.0, False),
        (100.0, -100.0, False),
        (-100.0, -100.0, True),
        (-100.0, -139.0, True),
        (-100.0, -141.0, False),
        (-100.0, -34.0, True),
        (-100.0, -32.0, False),
        (-100.0, 100.0, False),
        (0.0, 0.0, True),
        (0.0, 1.0, False),
        (100.0, float("nan"), False),
    ],
)
def test_models_are_trusted_near_what_was_recorded(recorded: float, modeled: float, trusted: bool) -> None:
    found = judge(episodes_of([recorded] * 5), [modeled])
    assert found is not None
    assert found.recorded == pytest.approx(recorded, abs=1e-4)
    assert found.trusted is trusted


def test_without_a_whole_episode_nothing_can_be_said() -> None:
    assert judge(episodes_of([100.0] * 5, fell=False), [100.0]) is None
    assert judge(episodes_of([100.0] * 5, fell=False), [100.0], horizon=4) is not None


def test_like_is_compared_with_like_and_one_kind_that_fits_is_enough() -> None:
    """Plain clones fall short of the plain mean; those of the better episodes meet theirs."""
    data, returns = episodes_of([0.0, 50.0, 100.0, 150.0, 200.0, 250.0]), torch.arange(6.0) * 50
    weights = row_weights(data, "return:1")[data.starts]
    better = float((weights * returns).sum() / weights.sum())
    assert better > 180
    names = ["uniform", "return:1", "uniform", "return:1"]
    found = judge(data, [20.0, better - 30, 40.0, better + 20], names=names)
    assert found is not None
    assert found.weighting == "return:1"
    assert found.recorded == pytest.approx(better, rel=1e-5)
    assert found.modeled == pytest.approx(better - 5, rel=1e-5)
    assert found.trusted
    plain = judge(data, [120.0, 20.0, 130.0, 20.0], names=names)
    assert plain is not None
    assert (plain.weighting, plain.recorded, plain.modeled) == ("uniform", pytest.approx(125.0), 125.0)


def test_only_whole_episodes_count() -> None:
    """The episode that was cut off early returned less than its policy would have."""
    data = three_episodes()
    found = judge(data, [64.0], horizon=10)
    assert found is not None
    assert found.recorded == pytest.approx((sum(range(4)) + sum(range(7, 17))) / 2)
