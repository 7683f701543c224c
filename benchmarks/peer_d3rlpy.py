"""Train an algorithm of d3rlpy for so many processor seconds; for peers.py, in a Python with d3rlpy.

    python peer_d3rlpy.py IQL data.npz SEED SECONDS [SECONDS ...] FOLDER

The settings are those of d3rlpy's own reproductions of the papers on D4RL's Hopper.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory

CHUNK = 500  # gradient steps between looks at the clock
STEPS = 1_000_000  # more than any budget


def make(name: str) -> d3rlpy.algos.QLearningAlgoBase:
    if name == "IQL":
        scaler = d3rlpy.preprocessing.ReturnBasedRewardScaler(multiplier=1000.0)
        return d3rlpy.algos.IQLConfig(reward_scaler=scaler).create(device="cpu:0")
    scaler = d3rlpy.preprocessing.StandardObservationScaler()
    return d3rlpy.algos.TD3PlusBCConfig(alpha=2.5, observation_scaler=scaler).create(device="cpu:0")


def main() -> None:
    name, path, seed, *budgets, folder = sys.argv[1:]
    torch.set_num_threads(1)
    d3rlpy.seed(int(seed))
    data = np.load(path)
    dataset = d3rlpy.dataset.MDPDataset(
        data["observations"],
        data["actions"],
        data["rewards"],
        data["terminals"].astype(np.float32),
        data["timeouts"].astype(np.float32),
    )
    algorithm = make(name)
    waiting = [float(budget) for budget in budgets]
    notes: list[dict[str, Any]] = []
    began = time.process_time()
    fitting = algorithm.fitter(
        dataset,
        n_steps=STEPS,
        n_steps_per_epoch=CHUNK,
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
    )
    for epoch, _ in fitting:
        used = time.process_time() - began
        if used >= waiting[0]:
            file = f"{len(notes)}.pt"
            algorithm.save_policy(str(Path(folder) / file))
            done = f"{epoch * CHUNK} gradient steps"
            notes.append({"file": file, "phase": "offline", "seconds": used, "done": done})
            waiting.pop(0)
        if not waiting:
            break
    (Path(folder) / "done.json").write_text(json.dumps(notes), encoding="utf-8")


if __name__ == "__main__":
    main()
