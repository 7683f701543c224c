"""Environment steps per second of the whole PPO learner: simulation, inference, advantages, updates.

    python benchmarks/ppo_speed.py --env Hopper-v5 --hidden 256 --minibatch 256 --epochs 10

Prints one line with wall-clock and processor rates; the second says what a quiet machine would do.
"""

import argparse
import time

import torch

from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim import make_sim


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--hidden", type=int, default=64, help="width of both hidden layers of both networks")
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--rollout", type=int, default=64, help="steps of each environment between updates")
    parser.add_argument("--minibatch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds, after one untimed")
    parser.add_argument("--sim-threads", type=int, default=None, help="simulator threads (all cores)")
    return parser.parse_args()


def make_learner(args: argparse.Namespace) -> PPO:
    sim = make_sim(args.env, args.envs, threads=args.sim_threads)
    hidden = (args.hidden, args.hidden)
    policy = GaussianPolicy(PolicySpec(1, sim.observation_dim, sim.action_dim, hidden, "tanh", "shared"))
    policy.set_scales(
        policy.observation_mean.clone(),
        policy.observation_std.clone(),
        torch.as_tensor(sim.action_low),
        torch.as_tensor(sim.action_high),
    )
    config = FinetuneConfig(
        num_envs=args.envs,
        rollout_steps=args.rollout,
        minibatch_size=args.minibatch,
        epochs=args.epochs,
        warmup_steps=0,
        value_hidden=hidden,
    )
    value = ValueFunction.create(sim.observation_dim, hidden, activation="tanh")
    return PPO(policy, value, sim, config, seed=0, normalize="running")


def main() -> None:
    args = arguments()
    learner = make_learner(args)
    learner.train()
    steps = learner.env_steps
    wall, cpu = time.perf_counter(), time.process_time()
    collecting = 0.0
    for _ in range(args.rounds):
        began = time.perf_counter()
        rollout = learner.collect(args.rollout)
        collecting += time.perf_counter() - began
        learner.update(rollout)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    steps = learner.env_steps - steps
    print(
        f"{args.env} hidden {args.hidden}x{args.hidden} minibatch {args.minibatch} epochs {args.epochs}: "
        f"{steps / wall:.0f} env steps/s ({steps / cpu:.0f} per processor second), "
        f"{collecting / wall:.0%} of the time collecting"
    )


if __name__ == "__main__":
    main()
