"""Scores of other code beside ours: the same dataset, simulator and processor time, one thread each.

    python benchmarks/peers.py --d3rlpy /tmp/d3rlpy/bin/python --corl /tmp/CORL --seeds 0 1 2

``--d3rlpy`` is a Python that has d3rlpy, ``--corl`` a checkout of its repository; either may be left out.
A run of unio4 goes first, without tracking: once never online, once to the end. The processor seconds of
its two parts, each with its reports and scores, are what the others get: d3rlpy offline the first part,
and then the whole; CORL the first part offline and the second online. Every policy is scored by our
evaluation, in the same episodes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timed_run import ONE_THREAD, timed_run

from unio4_lib.data.transitions import Transitions
from unio4_lib.learning.evaluation import evaluate
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.task import Task

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One score: who, with what, after how long."""

    who: str
    seed: int
    phase: str
    processor_seconds: float
    done: str
    mean: float
    stderr: float

    def __str__(self) -> str:
        return (
            f"{self.who:<16} seed {self.seed} {self.phase:<8} {self.processor_seconds:6.0f} s  "
            f"{self.mean:6.0f} ± {self.stderr:3.0f}  {self.done}"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="collect:Hopper-v5?level=medium-replay&steps=100000&seed={seed}")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--d3rlpy", type=Path, help="a Python that has d3rlpy")
    parser.add_argument("--corl", type=Path, help="a checkout of CORL")
    return parser.parse_args()


def unio4(config: UniO4Config, preset: str, folder: Path) -> tuple[list[Row], float, float]:
    """Our own rows, and the processor seconds of the parts before and after the switch."""
    rows, seconds = [], []
    for finetune in ("never", "always"):
        timed = timed_run(
            *("--dataset", config.dataset, "--preset", preset, "--seed", str(config.seed)),
            *("--tracking", "none", "--finetune", finetune),
            *("--output", str(folder), "--cache", str(folder / "cache")),
        )
        seconds.append(timed.processor)
        phase = "offline" if finetune == "never" else "online"
        score = timed.summary["scores"][phase]
        note = "" if phase == "offline" else f"{config.finetune.env_steps} environment steps"
        rows.append(
            Row("unio4", config.seed, phase, seconds[-1], note, score["mean_return"], score["stderr"])
        )
    return rows, seconds[0], seconds[1]


def save(transitions: Transitions, task: Task, path: Path) -> None:
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    arrays = {name: getattr(transitions, name) for name in names}
    np.savez(path, env_id=task.env_id, action_high=transitions.info.action_high, **arrays)


def peer(command: list[str], who: str, config: UniO4Config, task: Task, folder: Path) -> list[Row]:
    """Run a peer's script, which leaves TorchScript policies and what it did; score what it left."""
    folder.mkdir()
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, check=False, env=ONE_THREAD
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    rows = []
    for note in json.loads((folder / "done.json").read_text("utf-8")):
        policy = torch.jit.load(folder / note["file"])

        def act(observations: np.ndarray, policy: torch.jit.ScriptModule = policy) -> np.ndarray:
            with torch.no_grad():
                return policy(torch.as_tensor(observations, dtype=torch.float32)).numpy()

        stats = evaluate(act, task.sim, config.evaluate.episodes, config.evaluate.seed)
        rows.append(
            Row(who, config.seed, note["phase"], note["seconds"], note["done"], stats.mean, stats.stderr)
        )
    return rows


def one_seed(args: argparse.Namespace, seed: int, folder: Path) -> list[Row]:
    config = load_config(args.preset, dataset=args.dataset.format(seed=seed), seed=seed)
    assert isinstance(config, UniO4Config)
    transitions = load_transitions(config.dataset)  # recorded now, outside of all times
    task = Task.of(transitions)
    rows, offline, online = unio4(config, args.preset, folder)
    data = folder / "data.npz"
    save(transitions, task, data)
    budget = [str(data), str(seed), f"{offline:.1f}"]
    commands = []
    if args.d3rlpy:
        script = [str(args.d3rlpy), str(HERE / "peer_d3rlpy.py")]
        commands += [
            (f"d3rlpy {name}", [*script, name, *budget, f"{offline + online:.1f}"])
            for name in ("TD3PlusBC", "IQL")
        ]
    if args.corl:
        script = [sys.executable, str(HERE / "peer_corl.py"), str(args.corl)]
        commands.append(("CORL IQL", [*script, *budget, f"{online:.1f}"]))
    for who, command in commands:
        rows += peer(command, who, config, task, folder / who.replace(" ", "-"))
    return rows


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for row in one_seed(args, seed, Path(folder)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
