"""What a long run shows: bars with rate and time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 10.0

Update = Callable[[int, str], None]  # steps done so far, a few figures to show


class Reporter:
    """Shows stages on a console, several at once if need be; with no console it is silent."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.bars: Progress | None = None

    def __enter__(self) -> "Reporter":
        if self.console is not None and self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
            )
            self.bars = Progress(*columns, console=self.console)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def say(self, text: str) -> None:
        """One line."""
        if self.console is not None:
            self.console.print(text, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        """Show the progress of one stage."""
        if self.bars is not None:
            yield _Bar(self.bars, name, total)
        else:
            yield _Lines(self, name, total)


class _Rate:
    """Steps per second since the stage began."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, done: int) -> str:
        return f"{done / max(time.monotonic() - self.began, 1e-9):,.0f}/s"


class _Bar:
    """A bar on a terminal."""

    def __init__(self, bars: Progress, name: str, total: int) -> None:
        self.bars, self.rate = bars, _Rate()
        self.task: TaskID = bars.add_task(name, total=total, figures="", rate="")

    def __call__(self, done: int, figures: str) -> None:
        self.bars.update(self.task, completed=done, figures=figures, rate=self.rate(done))


class _Lines:
    """One line per interval, for logs."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self.reporter, self.name, self.total, self.rate = reporter, name, total, _Rate()
        self.last = time.monotonic()

    def __call__(self, done: int, figures: str) -> None:
        now = time.monotonic()
        if now - self.last < LINE_EVERY_SECONDS and done < self.total:
            return
        self.last = now
        line = f"{self.name}: {done:,}/{self.total:,} ({self.rate(done)}) {figures}"
        self.reporter.say(line.rstrip())
