"""What tracking costs: the same run with MLflow and without, in turn, in processes of their own.

    python benchmarks/tracking_cost.py --dataset minari:mujoco/hopper/medium-v0 --rounds 3

Four figures for each, of the process that trains; the process that talks to MLflow is another one. What
tracking takes from the stages is the time inside its calls and the longer waiting for a processor (as Linux
tells it of each thread); both hardly depend on what the host of a virtual machine does. Processor seconds
and seconds of the stages hold everything, also that noise. Each is the least of all rounds.
"""

import argparse
import tempfile
from pathlib import Path

from timed_run import timed_run

from unio4_lib.tracking.address import NO_TRACKING

Row = tuple[float, ...]  # seconds: inside tracking, waiting for a processor, on processors, of all stages


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", action="append", default=[], help="a setting of the run; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def one_run(args: argparse.Namespace, folder: Path, tracking: str) -> Row:
    settings = [word for setting in args.set for word in ("--set", setting)]
    timed = timed_run(
        *("--dataset", args.dataset, "--preset", args.preset, "--tracking", tracking),
        *("--output", str(folder), "--cache", str(folder / "cache")),
        *settings,
    )
    stages = sum(stage["seconds"] for stage in timed.summary["stages"].values())
    return timed.tracking, timed.waited, timed.processor, stages


def show(name: str, row: Row) -> None:
    figures = zip(("inside tracking", "waited", "processor", "stages"), row, strict=True)
    print(f"{name:<8}", *(f"{title} {seconds:7.2f} s" for title, seconds in figures), sep="  ", flush=True)


def main() -> None:
    args = arguments()
    found: dict[str, list[Row]] = {"without": [], "with": []}
    for number in range(args.rounds):
        for name in sorted(found, reverse=number % 2 == 0):  # neither always has the warmer machine
            with tempfile.TemporaryDirectory() as folder:
                uri = NO_TRACKING if name == "without" else f"sqlite:///{folder}/mlflow.db"
                found[name].append(one_run(args, Path(folder), uri))
                show(name, found[name][-1])
    print("least of each:")
    for name, rows in found.items():
        show(name, tuple(min(column) for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
