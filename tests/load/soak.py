"""Tiny runs one after another, on a machine that does nothing else: what grows from run to run is a leak.

Started as a program, it is the process that makes all runs itself, through the front door of notebooks.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiny_runs import SETTINGS, set_arguments

FEWEST_RUNS = 8  # two in each quarter
ENDING_SECONDS = 10.0  # for what a run leaves to itself, to end by itself
# Growth that is no leak, as a share: an allocator does not give the same memory back each time.
NOISE = {"memory": 0.05}

Reading = dict[str, int]


@dataclass(frozen=True)
class Machine:
    """A home, a cache and a folder for temporary files that only these runs have."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def surroundings(self) -> dict[str, str]:
        places = {"HOME": "home", "TMPDIR": "tmp", "UNIO4_CACHE": "cache", "MINARI_DATASETS_PATH": "minari"}
        for place in places.values():
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        return {**os.environ, **{name: str(self.folder / place) for name, place in places.items()}}

    def left(self, runs: int) -> Reading:
        """What is there beside the folders of so many runs, their artifacts and their database."""
        below = [path for path in self.folder.rglob("*") if self.runs not in (path, *path.parents)]
        for unfinished in (".staging", "checkpoints"):
            below += (self.runs / "artifacts" / unfinished).rglob("*")
        spare = [path for path in self.runs.iterdir() if not (path / "summary.json").is_file()]
        return {
            "entries left": len(below) + len(spare) + runs - len(self._finished()),
            "bytes left": sum(path.lstat().st_size for path in below if path.is_file()),
            "in the temporary folder": len(list((self.folder / "tmp").iterdir())),
            "processes": len(self._processes()),
        }

    def _finished(self) -> list[Path]:
        return [path for path in self.runs.glob("*/summary.json") if not path.parent.is_symlink()]

    def _processes(self) -> list[int]:
        """Of this machine, orphans included, but this one: all of them know its home."""
        mark = f"HOME={self.folder / 'home'}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*/environ"):
            try:
                known = place.read_bytes().split(b"\0")
            except OSError:  # it has just ended, or is not ours
                continue
            if mark in known and int(place.parent.name) != os.getpid():
                found.append(int(place.parent.name))
        return found

    def settled(self) -> None:
        """Wait for processes that end because their run has ended."""
        deadline = time.monotonic() + ENDING_SECONDS
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.05)


def numbers(minutes: float) -> Iterator[int]:
    """Runs for so long, and enough to tell growth from a beginning."""
    deadline = time.monotonic() + 60 * minutes
    number = 0
    while number < FEWEST_RUNS or time.monotonic() < deadline:
        number += 1
        yield number


def in_one_process(machine: Machine, dataset: str, minutes: float) -> list[Reading]:
    """Runs that one process makes; a reading after each."""
    command = [sys.executable, __file__, str(machine.folder), dataset, str(minutes)]
    places = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=machine.surroundings() | places, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def by_command(machine: Machine, dataset: str, minutes: float) -> list[Reading]:
    """Runs of ``unio4 run`` as everybody has them: stages are processes, numbers go to a database."""
    readings = []
    command = [sys.executable, "-m", "unio4_lib.cli", "run", "--quiet", "--dataset", dataset]
    command += ["--output", str(machine.runs)]
    for number in numbers(minutes):
        with (machine.folder / "said.txt").open("w+") as said:
            process = subprocess.Popen(
                [*command, *set_arguments(seed=number)], env=machine.surroundings(), stdout=said, stderr=said
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            assert process.returncode == 0, said.read()
        (machine.folder / "said.txt").unlink()
        machine.settled()
        readings.append({"memory": 1024 * used.ru_maxrss, **machine.left(number)})
    return readings


def quarters(readings: list[Reading]) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of the second quarter and of the last; the first is for warming up."""
    quarter = len(readings) // 4
    parts = readings[quarter : 2 * quarter], readings[-quarter:]
    early, late = ({name: statistics.median(r[name] for r in part) for name in part[0]} for part in parts)
    return early, late


def growth(readings: list[Reading]) -> dict[str, tuple[float, float]]:
    """What grew beyond noise, with both medians."""
    early, late = quarters(readings)
    return {
        name: (early[name], late[name])
        for name in early
        if late[name] > early[name] * (1 + NOISE.get(name, 0.0))
    }


def of_this_process() -> Reading:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def main(folder: str, dataset: str, minutes: str) -> None:
    from unio4_lib import train

    machine, settings = Machine(Path(folder)), {k: v for k, v in SETTINGS.items() if k != "seed"}
    for number in numbers(float(minutes)):
        # Another seed each time, or all but the first would reuse what is there.
        trained = train(dataset, seed=number, settings=settings, output=machine.runs, quiet=True)
        assert not trained.summary["stages"]["finetune-online"]["reused"]
        machine.settled()
        sys.stdout.write(json.dumps({**of_this_process(), **machine.left(number)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
