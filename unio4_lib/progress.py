"""What a long run shows: bars with rate and time left on a terminal, a line now and then elsewhere."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from unio4_lib.errors import Preempted

LINE_EVERY_SECONDS = 10.0
# Whoever draws bars for a stage in another process asks it for more lines than a log needs.
INTERVAL_VARIABLE = "UNIO4_PROGRESS_SECONDS"
BAR_EVERY_SECONDS = 1.0
BEGUN, DONE = "begun", "done in "
LINE = re.compile(
    r"(?P<name>.+): (?P<done>[\d,]+)/(?P<total>[\d,]+) "
    rf"\((?P<pace>{BEGUN}|{DONE}.+?|.+? left)\) ?(?P<figures>.*)"
)

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
        self._relayed: dict[str, _Bar] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> "Reporter":
        if self.console is not None and self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}", table_column=Column(justify="right")),
                TextColumn("{task.fields[rate]}", table_column=Column(justify="right", min_width=7)),
                _TimeColumn(compact=True, elapsed_when_finished=True),
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

    @property
    def child_environment(self) -> dict[str, str]:
        """What stages in other processes are told, so that ``relay`` has enough to draw."""
        return {} if self.bars is None else {INTERVAL_VARIABLE: str(BAR_EVERY_SECONDS)}

    def relay(self, line: str) -> None:
        """A line of a stage in another process: its progress moves a bar where there are bars."""
        found = LINE.fullmatch(line)
        if self.bars is None or found is None:
            self.say(line)
            return
        name, done, total = found["name"], *(int(found[key].replace(",", "")) for key in ("done", "total"))
        with self._lock:
            if found["pace"] == BEGUN and name in self._relayed:  # tried again
                self._relayed[name].pace = _Pace(total, done)
            elif name not in self._relayed:
                self._relayed[name] = _Bar(self.bars, name, _Pace(total, done))
            bar = self._relayed[name]
            bar(done, found["figures"])
            if found["pace"].startswith(DONE):
                bar.finish()

    @contextmanager
    def stage(self, name: str, total: int, start: int = 0) -> Iterator[Update]:
        """Show the progress of one stage, which may go on from a step that an earlier process reached.

        Each report is a moment at which it can be stopped.
        """
        pace = _Pace(total, start)
        shown = _Lines(self, name, pace) if self.bars is None else _Bar(self.bars, name, pace)

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


class _TimeColumn(TimeRemainingColumn):
    """The time left, then the time spent; a word says which."""

    def render(self, task: Task) -> Text:
        time = super().render(task)
        return Text("in ").append_text(time) if task.finished else time.append(" left")


class _Pace:
    """Steps per second since a stage began, and the time left at that pace."""

    def __init__(self, total: int, start: int = 0) -> None:
        self.total, self.start, self.began = total, start, time.monotonic()

    def rate(self, done: int) -> float:
        return max(done - self.start, 0) / max(time.monotonic() - self.began, 1e-9)

    def left(self, done: int) -> timedelta:
        return timedelta(seconds=round((self.total - done) / max(self.rate(done), 1e-9)))


class _Bar:
    """A bar on a terminal."""

    def __init__(self, bars: Progress, name: str, pace: _Pace) -> None:
        self.bars, self.pace, self.done = bars, pace, pace.start
        self.task: TaskID = bars.add_task(name, total=pace.total, completed=pace.start, figures="", rate="")

    def __call__(self, done: int, figures: str) -> None:
        self.done = done
        rate = f"{self.pace.rate(done):,.0f}/s"
        self.bars.update(self.task, completed=done, figures=figures, rate=rate)

    def finish(self) -> None:
        """A stage that stopped early is complete all the same."""
        self.bars.update(self.task, total=self.done, completed=self.done)


class _Lines:
    """One line per interval, for logs and for whoever draws bars from them."""

    def __init__(self, reporter: Reporter, name: str, pace: _Pace) -> None:
        self.reporter, self.name, self.pace = reporter, name, pace
        asked = os.environ.get(INTERVAL_VARIABLE)
        self.interval = LINE_EVERY_SECONDS if asked is None else float(asked)
        self.last, self.done = time.monotonic(), pace.start
        self.figures = ""
        if asked is not None:
            self._say(BEGUN)

    def __call__(self, done: int, figures: str) -> None:
        self.done, self.figures = done, figures
        now = time.monotonic()
        if now - self.last >= self.interval and done > 0:
            self.last = now
            self._say(f"{self.pace.rate(done):,.0f}/s, {self.pace.left(done)} left")

    def finish(self) -> None:
        spent = timedelta(seconds=round(time.monotonic() - self.pace.began))
        self._say(f"{DONE}{spent}")

    def _say(self, pace: str) -> None:
        line = f"{self.name}: {self.done:,}/{self.pace.total:,} ({pace}) {self.figures}"
        self.reporter.say(line.rstrip())
