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
import resource, sys, threading
from pathlib import Path

waits = []
run_thread = threading.Thread.run

def note_wait():
    waits.append(int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9)

def noting(thread):
    try:
        run_thread(thread)
    finally:
        note_wait()

threading.Thread.run = noting
from unio4_lib.cli import main
try:
    main(sys.argv[1:])
finally:
    note_wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("processor", used.ru_utime + used.ru_stime, sum(waits), file=sys.stderr)
"""


@dataclass(frozen=True)
class Timed:
    """What a run has to say, and seconds of all its threads: on a processor, and waiting for one."""

    summary: dict[str, Any]
    processor: float
    waited: float


def timed_run(*options: str) -> Timed:
    """``unio4 run`` with these options."""
    command = [sys.executable, "-c", CHILD, "run", "--runner", "inline", "--quiet", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    if done.returncode:
        raise SystemExit(done.stderr)
    processor, waited = map(float, done.stderr.split("processor ")[-1].split()[:2])
    return Timed(json.loads(done.stdout), processor, waited)
