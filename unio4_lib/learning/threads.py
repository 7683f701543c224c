"""How many threads the small matrix products of learners use, and what may run side by side."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TypeVar

import torch

Result = TypeVar("Result")

_in_turn = ContextVar("_in_turn", default=False)
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


class SecondThread:
    """For what is done side by side thousands of times: a thread that stays beside that of the caller.

    Each takes the next task when it is free, so that on a busy machine nothing waits for the second one to
    begin, and with one core nothing is lost. It ends with whoever has it.
    """

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def share(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Results of tasks that share nothing they change; all have ended when one has failed."""
        if len(tasks) < 2 or _in_turn.get():
            return [task() for task in tasks]
        waiting, results = deque(enumerate(tasks)), dict[int, Result]()

        def work() -> None:
            try:
                while True:
                    try:
                        number, task = waiting.popleft()
                    except IndexError:
                        return
                    results[number] = task()
            except BaseException:
                waiting.clear()
                raise

        second = self._pool.submit(work)
        try:
            work()
        finally:
            wait([second])
        second.result()
        return [results[number] for number in range(len(tasks))]


@contextmanager
def in_turn() -> Iterator[None]:
    """For whoever watches operations: those of another thread are not seen, so there is none in the block."""
    before = _in_turn.set(True)
    try:
        yield
    finally:
        _in_turn.reset(before)


def go_on() -> None:
    """Between two steps of a long task: raises ``AbandonedError`` where nobody waits for it any more."""
    stop: threading.Event | None = getattr(_own, "stop", None)
    if stop is not None and stop.is_set():
        raise AbandonedError
