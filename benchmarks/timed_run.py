"""A run of unio4 in a process of its own, and the processor seconds which that process used (on Linux)."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Runs a command of unio4 in this process, and says at the end what the process has used and waited for.
CHILD = """
import functools, resource, sys, threading, time
from pathlib import Path

waits, tracking, calls = [], [], threading.local()
run_thread = threading.Thread.run

def note_wait():
    waits.append(int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9)

def noting(thread):
    try:
        run_thread(thread)
    finally:
        note_wait()

def timed(call):
    @functools.wraps(call)
    def timing(*args, **options):
        depth, began = getattr(calls, "depth", 0), time.perf_counter()
        calls.depth = depth + 1
        try:
            return call(*args, **options)
        finally:
            calls.depth = depth
            if depth == 0:
                tracking.append(time.perf_counter() - began)
    return timing

threading.Thread.run = noting
from unio4_lib.cli.commands import main
from unio4_lib.stages import tracked
from unio4_lib.tracking.spool import Outbox
from unio4_lib.tracking.tracker import SpoolTracker
for owner, names in (
    (tracked, ("begin", "finish")),
    (Outbox, ("__init__", "append", "append_file", "close")),
    (SpoolTracker, ("__enter__", "_mention_trouble")),
):
    for name in names:
        setattr(owner, name, timed(getattr(owner, name)))
try:
    main(sys.argv[1:])
finally:
    note_wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("processor", used.ru_utime + used.ru_stime, sum(waits), sum(tracking), file=sys.stderr)
"""


@dataclass(frozen=True)
class Timed:
    """What a run has to say, and seconds of all its threads."""

    summary: dict[str, Any]
    processor: float
    waited: float  # for a processor
    tracking: float  # inside calls of tracking


def timed_run(*options: str) -> Timed:
    """``unio4 run`` with these options."""
    command = [sys.executable, "-c", CHILD, "run", "--runner", "inline", "--quiet", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures = map(float, done.stderr.split("processor ")[-1].split()[:3])
    return Timed(json.loads(done.stdout), *figures)
