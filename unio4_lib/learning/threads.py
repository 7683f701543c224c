"""How many threads the small matrix products of on-policy learning use, and what may run side by side."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")

_own = threading.local()  # of each thread: the event that tells its task to end


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` torch threads inside the block.

    One thread is fastest for networks of this size: the products take microseconds, and threads that wait
    for each other on a busy machine cost up to ten times as much. A fixed number also makes sums, and so
    whole runs, independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tiny_is_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as zero inside the block, in this thread and those that it starts.

    Processors need up to a hundred times as long for them. Weights that fall exponentially make such
    gradients, as CQL's over many actions: its largest products took 40 ms in place of 11.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


def side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of tasks that share nothing they change, each in a thread of its own with one torch thread.

    Unlike threads inside a matrix product they never wait for each other, so other cores help without
    changing a bit. What is switched off for the caller, as gradients are, is not so for its tasks. When
    the caller is interrupted or a task fails, the others end at their next ``go_on``.
    """
    stop = threading.Event()

    def alone(task: Callable[[], Result]) -> Result:
        _own.stop = stop
        with torch_threads(1):  # a new thread would begin with torch's default
            return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        try:
            running = [pool.submit(alone, task) for task in tasks]
            wait(running, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()
            raise
        failed = [task for task in running if task.done() and task.exception() is not None]
        if failed:
            stop.set()
            failed[0].result()
        return [task.result() for task in running]


def go_on() -> None:
    """Between two steps of a long task: raises ``AbandonedError`` where nobody waits for it any more."""
    stop: threading.Event | None = getattr(_own, "stop", None)
    if stop is not None and stop.is_set():
        raise AbandonedError
