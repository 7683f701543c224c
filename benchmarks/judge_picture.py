"""Draw what `offline_truth.py measure` found: estimates beside the truth, and what the gate made of gains.

    python benchmarks/judge_picture.py *.json --out docs/images/judge.svg

On the left every policy that was judged, both ways of acting together, over the mean of its log. On the
right every candidate before the gate: its estimated gain, and its true one over what stood there by then.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "unio4", "axes.spines.top": False})
matplotlib.rcParams["axes.spines.right"] = False
from matplotlib import pyplot  # noqa: E402
from offline_truth import both, gains_of, path_of  # noqa: E402

LIMIT = 60.0  # percent; larger gains are drawn at the edge


def source_of(run: dict[str, Any]) -> str:
    """The dataset without what all of them share."""
    name = run["dataset"].split("?")[0].partition(":")[2]
    return name.removeprefix("unio4/").removesuffix("-v0")


def judged(run: dict[str, Any]) -> list[tuple[float, float]]:
    """Estimate and truth of all policies, over the mean return of the log."""
    portfolio = [(both(member["estimate"]), both(member["true"])) for member in run["portfolio"]]
    return [(e / run["data"], t / run["data"]) for e, t in portfolio + path_of(run)]


def draw(runs: list[dict[str, Any]], out: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    sources = list(dict.fromkeys(map(source_of, runs)))
    for run in runs:
        color, name = f"C{sources.index(source_of(run))}", source_of(run)
        first = run is next(one for one in runs if source_of(one) == name)
        estimates, truth = zip(*judged(run), strict=True)
        left.plot(estimates, truth, "o", ms=3.5, alpha=0.6, color=color, mew=0, label=name if first else None)
        for estimated, true, passed in gains_of(run):
            x, y = (max(-LIMIT, min(LIMIT, 100 * value)) for value in (estimated, true))
            right.plot(x, y, "o", ms=5 if passed else 3.5, mfc=color if passed else "none", mec=color)
    left.axline((1, 1), slope=1, color="0.7", lw=0.8, zorder=0)
    left.set(xlabel="estimate / mean of the log", ylabel="true return / mean of the log")
    left.set(xscale="log", yscale="log")
    left.legend(frameon=False)
    for line in (right.axhline, right.axvline):
        line(0, color="0.7", lw=0.8, zorder=0)
    right.set(xlabel="estimated gain, %; filled: accepted", ylabel="true gain, %")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw([json.loads(file.read_text()) for file in arguments.files], arguments.out)
