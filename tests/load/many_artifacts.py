"""Roots with thousands of small artifacts, as many runs leave them, and what it costs to look after them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from cProfile import Profile
from pathlib import Path
from unittest.mock import patch

from made_artifacts import describe, make_folder

from unio4_lib.artifacts.manifest import MANIFEST_FILE
from unio4_lib.artifacts.store import FolderStore
from unio4_lib.stages.fingerprint import FINGERPRINTS, IndexEntry, digest_of, write_entry

IN_A_RUN = 7  # artifacts, each made from the one before
LUCK = ("threading.py", "concurrent/futures/_base.py", "concurrent/futures/thread.py")
OLD_SECONDS = 40 * 24 * 3600.0
COMMANDS = {"list": ["list", "--json"], "verify": ["verify"], "gc": ["gc", "--remove", "--runs", "none"]}


def fill(root: Path, count: int, seed: int, work: Path) -> int:
    """So many artifacts, of which nobody has used every other run since forty days; how many these are."""
    store, before, old = FolderStore(root), time.time() - OLD_SECONDS, 0
    inputs: dict[str, str] = {}
    with patch("os.fsync"):  # what is in use has been on the disk for long
        for number in range(count):
            inputs = inputs if number % IN_A_RUN else {}
            made = make_folder(work / "made", seed=seed * count + number)
            ref = store.publish(made, describe(made, inputs=inputs))
            shutil.rmtree(made)
            key, inputs = digest_of([seed, number]), {"offline": ref.digest}
            write_entry(store, key, IndexEntry(ref=ref))
            if number // IN_A_RUN % 2 == 0:
                old += 1
                for path in (store.place(ref.digest) / MANIFEST_FILE, root / FINGERPRINTS / key):
                    os.utime(path, (before, before))
    return old


def told(name: str, said: str) -> tuple[int, ...]:
    """The counts that a command ends with."""
    if name == "list":
        return (len(json.loads(said)),)
    last = said.splitlines()[-1]
    return tuple(int(word) for word in last.replace(",", " ").split() if word.isdigit())[:2]


def expected(name: str, count: int, old: int) -> tuple[int, ...]:
    return {"list": (count,), "verify": (count, count), "gc": (count - old, old)}[name]


def timed(root: str, name: str, work: Path) -> tuple[float, float, str]:
    """How long ``unio4 artifacts`` takes, its start included, how much of the processor, and what it says."""
    command = [sys.executable, "-m", "unio4_lib.cli", "artifacts", *COMMANDS[name], "--artifact-root", root]
    began = time.monotonic()
    with (work / "said.txt").open("w+") as said:
        environment = {**os.environ, "UNIO4_CACHE": str(work)}
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=work, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        said.seek(0)
        text = said.read()
    assert process.returncode == 0, text
    return took, used.ru_utime + used.ru_stime, text


def calls(action: Callable[[], object]) -> Counter[tuple[str, str, int]]:
    """How often each Python function is called; waiting for threads is a matter of luck, and left out."""
    profile = Profile()
    profile.runcall(action)
    found: Counter[tuple[str, str, int]] = Counter()
    for entry in profile.getstats():
        code = entry.code
        if not isinstance(code, str) and not code.co_filename.endswith(LUCK):
            found[code.co_filename, code.co_name, code.co_firstlineno] += entry.callcount
    return found
