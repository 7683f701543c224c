"""``unio4 report``: the page of one run, or of several runs beside each other."""

import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from unio4_lib.errors import InputError
from unio4_lib.files import output_file
from unio4_lib.methods.configs import method_named
from unio4_lib.methods.pages import write_page
from unio4_lib.report.comparison import COMPARISON, write_comparison
from unio4_lib.report.html import REPORT
from unio4_lib.report.record import read_run

VIDEO = "rollouts.gif"


def make_report(
    runs: Sequence[Path], output: Path | None, *, show: bool, video: bool, frames: int, size: int
) -> None:
    """Write the page, say where it is, and open it if asked."""
    records = [read_run(run) for run in runs]
    if len(runs) == 1:
        target = output or runs[0] / REPORT
        place = output_file(target)
        method = method_named(records[0].config)
        pictures = _video(runs[0], frames, size) if video else None
        _write(target, lambda: write_page(records[0], place, method, pictures))
    elif video:
        raise InputError(f"--video: {len(runs)} runs given; expected one")
    else:
        names = [run.resolve() for run in runs]
        if len(set(names)) < len(names):
            raise InputError("report: a run is given twice; expected different runs")
        target = output or Path(COMPARISON)
        place = output_file(target)
        _write(target, lambda: write_comparison(records, place))
    print(target)
    if show:
        webbrowser.open(target.resolve().as_uri())


def _write(target: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except InputError:  # which says itself what does not fit
        raise
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{target}: cannot be drawn, what the run left does not fit ({type(error).__name__}: {error}); "
            "expected files as unio4 wrote them (--debug shows where)"
        ) from error


def _video(run: Path, frames: int, size: int) -> bytes | None:
    """The film of a run, also as a file beside its report; None, and one line, where nothing can draw it."""
    from unio4_lib.report.film import NoRenderer, film_of_run

    try:
        pictures = film_of_run(run, frames=frames, size=size, seed=0)
    except NoRenderer as error:
        print(f"note: no video: {error}", file=sys.stderr)
        return None
    (run / VIDEO).write_bytes(pictures)
    return pictures
