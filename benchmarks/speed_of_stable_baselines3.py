"""The whole PPO learner of stable-baselines3 on Hopper; see ``unio4_lib.bench.peers``.

Two networks of 256 x 256, minibatches of 256, 10 epochs, 32 environments of 64 steps a round.
"""

import json
import sys
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

ENVIRONMENT, COUNT, STEPS = "Hopper-v5", 32, 64


def main() -> None:
    torch.set_num_threads(1)
    learner = PPO(
        "MlpPolicy",
        make_vec_env(ENVIRONMENT, COUNT, seed=0),
        n_steps=STEPS,
        batch_size=256,
        n_epochs=10,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
        seed=0,
    )
    print(json.dumps({"name": "stable_baselines3", "loops": [["online PPO", "env step"]]}), flush=True)
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        units, processor, began = 0, time.process_time(), time.perf_counter()
        while units == 0 or time.perf_counter() - began < seconds:
            learner.learn(COUNT * STEPS, reset_num_timesteps=False)
            units += COUNT * STEPS
        print(json.dumps([units, time.process_time() - processor, time.perf_counter() - began]), flush=True)


if __name__ == "__main__":
    main()
