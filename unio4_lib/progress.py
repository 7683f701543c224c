"""What a long run shows: bars with rate and time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 10.0

Update = Callable[[int, str], None]  # steps done so far, a few figures to show


class Reporter:
    """Shows stages on a console; with no console it is silent."""

    def __init__(self, console: Console | None) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """One line."""
        if self.console is not None:
            self.console.print(text, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        """Show the progress of one stage."""
        if self.console is None:
            yield lambda done, figures: None
        elif self.console.is_terminal:
            with _bar(self.console) as bar:
                task = bar.add_task(name, total=total, figures="")
                yield lambda done, figures: bar.update(task, completed=done, figures=figures)
        else:
            yield _Lines(self, name, total)


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    return Progress(*columns, console=console, transient=True)


class _Lines:
    """One line per interval, for logs."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self.reporter, self.name, self.total = reporter, name, total
        self.began = self.last = time.monotonic()

    def __call__(self, done: int, figures: str) -> None:
        now = time.monotonic()
        if now - self.last < LINE_EVERY_SECONDS and done < self.total:
            return
        self.last = now
        rate = done / max(now - self.began, 1e-9)
        self.reporter.say(f"{self.name}: {done:,}/{self.total:,} ({rate:,.0f}/s) {figures}".rstrip())
