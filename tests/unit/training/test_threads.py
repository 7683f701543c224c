"""Tasks side by side: the same results as one after the other, and no task that nobody waits for."""

import threading
import time

import pytest
import torch

from unio4_lib.learning.threads import AbandonedError, go_on, side_by_side, tiny_is_zero, torch_threads

PATIENCE = 20.0  # seconds until a task that should have ended is called endless


def endless(ended: list[str]) -> None:
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < PATIENCE:
            go_on()
            time.sleep(0.001)
    except AbandonedError:
        ended.append("abandoned")
        raise


def test_results_come_in_the_order_of_the_tasks_however_long_each_takes() -> None:
    first = threading.Event()

    def slow() -> str:
        assert first.wait(PATIENCE)
        return "slow"

    def quick() -> str:
        first.set()  # would hang if the tasks ran one after the other
        return "quick"

    assert side_by_side([slow, quick]) == ["slow", "quick"]


def test_each_task_has_one_torch_thread_and_the_caller_keeps_its_own() -> None:
    with torch_threads(2):
        assert side_by_side([torch.get_num_threads, torch.get_num_threads]) == [1, 1]
        assert torch.get_num_threads() == 2


def test_when_a_task_fails_the_others_end_and_its_error_is_told() -> None:
    ended = list[str]()

    def fails() -> None:
        raise ValueError("no such row")

    begun = time.monotonic()
    with pytest.raises(ValueError, match="no such row"):
        side_by_side([lambda: endless(ended), fails])
    assert ended == ["abandoned"]
    assert time.monotonic() - begun < PATIENCE / 2


def test_when_the_caller_is_interrupted_all_tasks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = list[str]()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unio4_lib.learning.threads.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side([lambda: endless(ended), lambda: endless(ended)])
    assert ended == ["abandoned", "abandoned"]


def test_outside_of_such_tasks_everything_goes_on() -> None:
    side_by_side([lambda: None])
    go_on()


def tiny() -> float:
    return float(torch.tensor([1e-38]) * 0.1)


def test_tiny_numbers_are_zero_inside_only() -> None:
    assert 0.0 < tiny() < 1e-38
    with tiny_is_zero():
        assert tiny() == 0.0
    assert tiny() > 0.0
    with pytest.raises(ZeroDivisionError), tiny_is_zero():
        raise ZeroDivisionError
    assert tiny() > 0.0
