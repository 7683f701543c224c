"""Readers that hand buffers to C, in valgrind's hands: no case may touch memory that is not its own.

``make fuzz-memory`` does so. A case is the one of campaign.py of the same seed, target and number. Before all
others comes a deliberate write behind an array: where that is not seen, nothing is said of the rest.
"""

import argparse
import ctypes
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from random import Random

import numpy as np

from unio4_lib.errors import InputError

WATCHED = ("minari-metadata", "minari-bytes", "minari-structure", "d4rl-bytes", "d4rl-structure")
WATCHED += ("transitions",)
CONTROL = "control"
ERROR = re.compile(r"==\d+== (Invalid (?:read|write|free).*|Source and destination overlap.*)")
# Not values that nobody has set: numpy and the loader look at such ones on purpose.
VALGRIND = ("valgrind", "--undef-value-errors=no", "--leak-check=no", "--error-limit=no", "--num-callers=30")
VALGRIND += (f"--suppressions={Path(__file__).with_name('watched.supp')}",)


def attempt(name: str, seed: int, cases: int, folder: Path) -> None:
    """Inside: all cases of a target, one after another."""
    import data_targets  # with PyTorch: minutes here, which the control need not wait for

    target = getattr(data_targets, name.replace("-", "_"))(folder)
    for case in range(cases):
        work = folder / "case"
        work.mkdir()
        with redirect_stdout(io.StringIO()):
            try:
                target.attempt(Random(f"{seed}/{target.name}/{case}"), work)
            except InputError:
                pass  # as it should be
            except Exception as error:
                print(f"{name} case {case}: {error!r}", file=sys.stderr)  # campaign.py judges that
        shutil.rmtree(work)


def overrun() -> None:
    """Inside: what must be seen."""
    array = np.zeros(1000, np.uint8)
    ctypes.memset(array.ctypes.data + array.nbytes, 1, 1)


def watch(name: str, seed: int, cases: int) -> list[str]:
    """What valgrind has to say of a target."""
    with tempfile.TemporaryDirectory(prefix="unio4-watched-") as place:
        log = Path(place) / "valgrind.log"
        inside = [sys.executable, __file__, "--inside", "--target", name]
        inside += ["--seed", str(seed), "--cases", str(cases)]
        # Blocks from malloc, each on its own: Python's arenas would hide what goes from one to the next.
        environment = {**os.environ, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": place}
        done = subprocess.run([*VALGRIND, f"--log-file={log}", *inside], env=environment, check=False)
        found = ERROR.findall(log.read_text(errors="replace"))
        return found if done.returncode == 0 else [*found, f"ended with {done.returncode}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=[CONTROL, *WATCHED], action="append")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.inside:
        with tempfile.TemporaryDirectory() as place:
            [name] = told.target
            overrun() if name == CONTROL else attempt(name, told.seed, told.cases, Path(place))
        return 0
    if shutil.which("valgrind") is None:
        print("no valgrind here; on Debian: apt-get install valgrind libc6-dbg", file=sys.stderr)
        return 2
    if not any("write" in line for line in watch(CONTROL, told.seed, 0)):
        print("valgrind does not see a write behind an array here: nothing can be said", file=sys.stderr)
        return 2
    count = 0
    for name in told.target or WATCHED:
        began = time.monotonic()
        found = watch(name, told.seed, told.cases)
        count += len(found)
        took = time.monotonic() - began
        print(f"{name:24} {told.cases} cases, {len(found)} findings, {took:.0f} s", flush=True)
        for line in sorted(set(found)):
            print(f"  {line}", flush=True)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
