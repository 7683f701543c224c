"""d3rlpy's learners on random rows of Hopper's size; see ``unio4_lib.bench.peers``."""

import json
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import d3rlpy
import numpy as np
import torch

ROWS, EPISODE, OBSERVATIONS, ACTIONS, BATCH = 20_000, 500, 11, 3, 256


def random_dataset() -> d3rlpy.dataset.MDPDataset:
    draw = np.random.default_rng(0)
    ends = np.zeros(ROWS, np.float32)
    ends[EPISODE - 1 :: EPISODE] = 1.0
    return d3rlpy.dataset.MDPDataset(
        observations=draw.standard_normal((ROWS, OBSERVATIONS), np.float32),
        actions=np.tanh(draw.standard_normal((ROWS, ACTIONS), np.float32)),
        rewards=draw.standard_normal(ROWS, np.float32),
        terminals=np.zeros(ROWS, np.float32),
        timeouts=ends,
    )


def main() -> None:
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # it prints
    data = random_dataset()
    kinds = {
        "iql": d3rlpy.algos.IQLConfig,
        "td3_bc": d3rlpy.algos.TD3PlusBCConfig,
        "cql": d3rlpy.algos.CQLConfig,
    }
    learners = {}
    for name, kind in kinds.items():
        learners[name] = kind(batch_size=BATCH).create(device="cpu:0")
        learners[name].build_with_dataset(data)
    print(
        json.dumps({"name": "d3rlpy", "loops": [[name, "update"] for name in learners]}),
        file=answers,
        flush=True,
    )
    for line in sys.stdin:
        asked = json.loads(line)
        learner = learners[asked["loop"]]
        units, processor, began = 0, time.process_time(), time.perf_counter()
        while units == 0 or time.perf_counter() - began < asked["seconds"]:
            learner.update(data.sample_transition_batch(BATCH))
            units += 1
        spent = [units, time.process_time() - processor, time.perf_counter() - began]
        print(json.dumps(spent), file=answers, flush=True)


if __name__ == "__main__":
    main()
