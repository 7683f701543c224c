"""What a long run shows: bars with rate and time left on a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from unio4_lib.errors import Preempted

LINE_EVERY_SECONDS = 10.0

Update = Callable[[int, str], None]  # steps done so far, a few figures to show


class Stopped(RuntimeError):  # noqa: N818 - reads as a statement of what happened
    """The stage was told to end because another one beside it failed."""


class Reporter:
    """Shows stages on a console, several at once if need be; with no console it is silent.

    Reports are also where stages can be stopped: see ``together``.
    """

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.bars: Progress | None = None
        self._stop = threading.Event()

    def __enter__(self) -> "Reporter":
        if self.console is not None and self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", table_column=Column(justify="right", min_width=7)),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                # The first to give way on a narrow terminal, and never a second line.
                TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, ratio=1)),
            )
            self.bars = Progress(*columns, console=self.console, expand=True)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def say(self, text: str) -> None:
        """One line."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        """Show the progress of one stage; each report is a moment at which it can be stopped."""
        shown = _Lines(self, name, total) if self.bars is None else _Bar(self.bars, name, total)

        def update(done: int, figures: str) -> None:
            if self._stop.is_set():
                raise Stopped(f"{name} was stopped at step {done}")
            shown(done, figures)

        yield update
        shown.finish()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Whatever fails in here stops all stages, in whichever thread, at their next report."""
        try:
            yield
        except Preempted:  # the others are asked to end too, and save what they have first
            raise
        except BaseException:
            self._stop.set()
            raise


class _Pace:
    """Steps per second since a stage began, and the time left at that pace."""

    def __init__(self, total: int) -> None:
        self.total, self.began = total, time.monotonic()

    def rate(self, done: int) -> float:
        return done / max(time.monotonic() - self.began, 1e-9)

    def left(self, done: int) -> timedelta:
        return timedelta(seconds=round((self.total - done) / max(self.rate(done), 1e-9)))


class _Bar:
    """A bar on a terminal."""

    def __init__(self, bars: Progress, name: str, total: int) -> None:
        self.bars, self.pace, self.done = bars, _Pace(total), 0
        self.task: TaskID = bars.add_task(name, total=total, figures="", rate="")

    def __call__(self, done: int, figures: str) -> None:
        self.done = done
        rate = f"{self.pace.rate(done):,.0f}/s"
        self.bars.update(self.task, completed=done, figures=figures, rate=rate)

    def finish(self) -> None:
        """A stage that stopped early is complete all the same."""
        self.bars.update(self.task, total=self.done, completed=self.done)


class _Lines:
    """One line per interval, for logs."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self.reporter, self.name, self.pace = reporter, name, _Pace(total)
        self.last, self.done = time.monotonic(), 0
        self.figures = ""

    def __call__(self, done: int, figures: str) -> None:
        self.done, self.figures = done, figures
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_SECONDS and done > 0:
            self.last = now
            self._say(f"{self.pace.rate(done):,.0f}/s, {self.pace.left(done)} left")

    def finish(self) -> None:
        spent = timedelta(seconds=round(time.monotonic() - self.pace.began))
        self._say(f"done in {spent}")

    def _say(self, pace: str) -> None:
        line = f"{self.name}: {self.done:,}/{self.pace.total:,} ({pace}) {self.figures}"
        self.reporter.say(line.rstrip())
