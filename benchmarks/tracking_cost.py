"""What tracking costs: the same run with MLflow and without, in turn, in processes of their own.

    python benchmarks/tracking_cost.py --dataset minari:mujoco/hopper/medium-v0 --rounds 3

Two figures for each. Processor seconds of the process that trains (the process that talks to MLflow is
another one) hardly depend on what else the machine does; seconds of the stages, as the run's summary has
them, do. Both are of the fastest round.
"""

import argparse
import tempfile
from pathlib import Path

from timed_run import timed_run

from unio4_lib.tracking.tracker import NO_TRACKING


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", action="append", default=[], help="a setting of the run; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def one_run(args: argparse.Namespace, folder: Path, tracking: str) -> tuple[float, float]:
    """Processor seconds of the process, and the sum of its stages' seconds."""
    settings = [word for setting in args.set for word in ("--set", setting)]
    summary, processor = timed_run(
        *("--dataset", args.dataset, "--preset", args.preset, "--tracking", tracking),
        *("--output", str(folder), "--cache", str(folder / "cache")),
        *settings,
    )
    return processor, sum(stage["seconds"] for stage in summary["stages"].values())


def main() -> None:
    args = arguments()
    found: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    for _ in range(args.rounds):
        for name, results in found.items():
            with tempfile.TemporaryDirectory() as folder:
                uri = NO_TRACKING if name == "without" else f"sqlite:///{folder}/mlflow.db"
                results.append(one_run(args, Path(folder), uri))
    for name, results in found.items():
        processor, stages = (min(column) for column in zip(*results, strict=True))
        print(f"{name:<8} processor {processor:7.2f} s   stages {stages:7.2f} s")


if __name__ == "__main__":
    main()
