"""A run of unio4 in a process of its own, and the processor seconds which that process used."""

import json
import os
import subprocess
import sys
from typing import Any

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Runs a command of unio4 in this process and says at the end what the process itself has used.
CHILD = """
import resource, sys
from unio4_lib.cli import main
try:
    main(sys.argv[1:])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"processor {used.ru_utime + used.ru_stime}", file=sys.stderr)
"""


def timed_run(*options: str) -> tuple[dict[str, Any], float]:
    """The summary of ``unio4 run`` with these options, and the processor seconds."""
    command = [sys.executable, "-c", CHILD, "run", "--runner", "inline", "--quiet", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout), float(done.stderr.split("processor ")[-1].split()[0])
