"""Gymnasium's synchronous vector environment under random actions; see ``unio4_lib.bench.peers``."""

import json
import sys
import time

import gymnasium
import numpy as np

ENVIRONMENT, COUNT, STEPS = "Hopper-v5", 32, 16


def main() -> None:
    environments = gymnasium.make_vec(ENVIRONMENT, num_envs=COUNT, vectorization_mode="sync")
    environments.reset(seed=0)
    space = environments.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    draw = np.random.default_rng(0)
    actions = draw.uniform(space.low, space.high, (STEPS, *space.shape)).astype(space.dtype)
    print(json.dumps({"name": "gymnasium", "loops": [["simulation", "env step"]]}), flush=True)
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        units, processor, began = 0, time.process_time(), time.perf_counter()
        while units == 0 or time.perf_counter() - began < seconds:
            for row in actions:
                environments.step(row)
            units += STEPS * COUNT
        print(json.dumps([units, time.process_time() - processor, time.perf_counter() - began]), flush=True)


if __name__ == "__main__":
    main()
