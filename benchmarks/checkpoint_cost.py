"""What checkpoints cost, and what a sudden end loses: states of several sizes, on disk and on their way.

    python benchmarks/checkpoint_cost.py [--root FOLDER-OR-S3]

The training waits while a state is copied and written to the disk; the upload goes on beside it. What it
costs is its processor time, which is the wait on a quiet machine. A process that is killed at the worst
moment loses the interval and the upload that was not finished.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from unio4_lib.artifacts.store import open_store
from unio4_lib.learning.checkpoint import Checkpointer
from unio4_lib.methods.unio4.settings import UniO4Config

MEGABYTES = (1, 4, 16, 64, 256)
TRIES = 3
PARTS = 40  # tensors of a state


def measured(megabytes: int, root: str) -> tuple[float, float]:
    """Processor seconds of the training, and seconds until the store has it; the best of some tries."""
    count = megabytes * 1024 * 1024 // 4 // PARTS
    state = {f"layer{part}": torch.randn(count) for part in range(PARTS)}
    waits, arrivals = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpointer(0.0, Path(folder), open_store(root), "checkpoints/benchmark")
        for _ in range(TRIES):
            began, spent = time.perf_counter(), time.thread_time()
            checkpoints.save(state)
            waits.append(time.thread_time() - spent)
            assert checkpoints.flush(), checkpoints.problem
            arrivals.append(time.perf_counter() - began)
        checkpoints.discard()
        checkpoints.close()
    return min(waits), min(arrivals)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="artifact root; by default a folder that is removed again")
    root = parser.parse_args().root
    interval = UniO4Config.model_fields["checkpoint_seconds"].default
    print(f"| State | Training | Share of the time, every {interval:g} s | Lost at most |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in MEGABYTES:
            wait, arrival = measured(megabytes, root or folder)
            print(f"| {megabytes} MB | {wait:.3f} s | {wait / interval:.2%} | {interval + arrival:.1f} s |")


if __name__ == "__main__":
    main()
