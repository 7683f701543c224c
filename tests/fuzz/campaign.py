"""Fuzzing: each case of each target ends well or with an InputError, soon, in little memory, in its folder.

``make fuzz FUZZ_CASES=10000`` runs all targets; with FUZZ_ARGS="--target NAME --case 17" one case of one,
with the traceback. A case depends on the seed, its target and its number alone.
"""

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from target import Target
from targets import TARGETS

from unio4_lib.errors import InputError

LONGEST_SECONDS = 10.0
MOST_BYTES = 1 << 30
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


@dataclass(frozen=True)
class Finding:
    """A case that ended otherwise, with how."""

    target: str
    case: int
    what: str


class _Fence:
    """Sees every file that Python opens for writing; what lies outside the folder is remembered."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.crossed: str | None = None
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in ("open", *CHANGES):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        paths = {"os.rename": arguments[:2], "os.link": arguments[1:2], "os.symlink": arguments[1:2]}
        for path in paths.get(event, arguments[:1]):
            if isinstance(path, str | bytes | os.PathLike):
                place = _real(os.fsdecode(path), arguments[-1])
                if not f"{place}/".startswith((f"{self.folder}/", "/dev/")):
                    self.crossed = f"{event} {place}"


def _real(path: str, folder: object) -> str:
    """Where a path leads, from the open folder that it is relative to; a link itself is not followed."""
    if isinstance(folder, int) and folder >= 0 and not path.startswith("/"):
        path = str(Path(f"/proc/self/fd/{folder}").readlink() / path)
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name)  # noqa: PTH118 - a Path would lose an odd name


FENCE: list[_Fence] = []


def run_case(target: Target, seed: int, case: int, folder: Path) -> str | None:
    """What is wrong with how the case ended; None where nothing is."""
    if not FENCE:
        FENCE.append(_Fence())
    fence = FENCE[0]
    work = folder / "case"
    work.mkdir()
    random = Random(f"{seed}/{target.name}/{case}")
    fence.folder, fence.crossed = os.path.realpath(work), None
    try:
        with redirect_stdout(io.StringIO()):
            target.attempt(random, work)
        wrong = None
    except InputError as error:
        text = str(error)
        wrong = "an empty message" if not text.strip() else None
    except MemoryError:
        wrong = f"more than {MOST_BYTES >> 20} MiB at {_place(sys.exc_info()[2])}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {str(error)[:150]!r} at {_place(error.__traceback__)}"
    finally:
        fence.folder = None
        shutil.rmtree(work, ignore_errors=True)
    return f"written outside: {fence.crossed}" if wrong is None and fence.crossed else wrong


def _place(trace: Any) -> str:
    """The last line of ours that was on the way."""
    frames = [frame for frame in traceback.extract_tb(trace) if "unio4_lib" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no line of ours"


def _work(name: str, seed: int, cases: range, place: str, told: Connection) -> None:
    """A process that says which case it is at and what it found."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print of broken files
    folder = Path(place)
    target = TARGETS[name](folder)
    run_case(target, seed, -1, folder)  # all is imported and allocated before memory is counted
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
    for case in cases:
        told.send((case, None))
        wrong = run_case(target, seed, case, folder)
        if wrong:
            told.send((case, wrong))
    told.send((-1, None))


def fuzz(name: str, seed: int, cases: range) -> Iterator[Finding]:
    """All cases of a target; a process that hangs or dies is a finding, and another goes on behind it."""
    context = multiprocessing.get_context("fork")
    while cases:
        with tempfile.TemporaryDirectory(prefix="unio4-fuzz-") as place:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, seed, cases, place, theirs), daemon=True)
            process.start()
            theirs.close()
            at = cases.start
            limit = 60.0  # to begin
            wrong = None
            while True:
                if not ours.poll(limit):
                    wrong = f"takes more than {limit:.0f} s"
                    break
                try:
                    case, found = ours.recv()
                except EOFError:
                    process.join()
                    wrong = f"the process died ({process.exitcode})"
                    break
                if case == -1:
                    break
                at, limit = case, LONGEST_SECONDS
                if found:
                    yield Finding(name, at, found)
            process.kill()
            process.join()
            if wrong is None:
                return
            yield Finding(name, at, wrong)
            cases = range(at + 1, cases.stop)


def _replay(name: str, seed: int, case: int) -> int:
    """One case in this process, with its traceback."""
    with tempfile.TemporaryDirectory(prefix="unio4-fuzz-") as place:
        signal.alarm(int(LONGEST_SECONDS))
        target = TARGETS[name](Path(place))
        work = Path(place) / "case"
        work.mkdir()
        try:
            target.attempt(Random(f"{seed}/{name}/{case}"), work)
        except InputError as error:
            print(f"InputError: {error}")
        except Exception:
            traceback.print_exc()
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=list(TARGETS), action="append")
    parser.add_argument("--case", type=int)
    told = parser.parse_args()
    if told.case is not None:
        return _replay(told.target[0], told.seed, told.case)
    count = 0
    for name in told.target or TARGETS:
        began = time.monotonic()
        findings = list(fuzz(name, told.seed, range(told.cases)))
        count += len(findings)
        print(
            f"{name:24} {told.cases} cases, {len(findings)} findings, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        shown: set[str] = set()
        for finding in findings:
            key = finding.what.partition(" at ")[2] or finding.what
            if key not in shown:
                shown.add(key)
                print(f"  case {finding.case}: {finding.what}", flush=True)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
