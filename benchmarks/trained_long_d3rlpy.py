"""d3rlpy's IQL on one dataset, as long as ours in trained_long.py; for a Python with d3rlpy and Minari.

    /path/to/python benchmarks/trained_long_d3rlpy.py unio4/hopper/medium-v0 --updates 50000 --seeds 0 1

The settings are those of d3rlpy's own reproduction of the paper on D4RL: rewards scaled by the range of
returns, the policy's step size falling along half a cosine, rows of 256. One line of JSON for each policy.
"""

import argparse
import json
import time

import d3rlpy
import gymnasium
import minari
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory

FIRST_EPISODE = 1_000  # of the seeds that score


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=20)
    return parser.parse_args()


def load(log: minari.MinariDataset) -> d3rlpy.dataset.MDPDataset:
    episodes = list(log.iterate_episodes())
    columns = {
        "observations": [episode.observations[:-1] for episode in episodes],
        "actions": [episode.actions for episode in episodes],
        "rewards": [episode.rewards for episode in episodes],
        "terminals": [episode.terminations for episode in episodes],
        "timeouts": [last_row_only(episode) for episode in episodes],
    }
    return d3rlpy.dataset.MDPDataset(
        **{name: np.concatenate(parts).astype(np.float32) for name, parts in columns.items()}
    )


def last_row_only(episode: minari.EpisodeData) -> np.ndarray:
    """An episode ends where its rows do, whatever cut it off."""
    ends = np.zeros(len(episode.rewards), dtype=bool)
    ends[-1] = not episode.terminations[-1]
    return ends


def iql(updates: int) -> d3rlpy.algos.IQL:
    falling = d3rlpy.optimizers.CosineAnnealingLRFactory(T_max=updates)
    return d3rlpy.algos.IQLConfig(
        actor_optim_factory=d3rlpy.optimizers.AdamFactory(lr_scheduler_factory=falling),
        reward_scaler=d3rlpy.preprocessing.ReturnBasedRewardScaler(multiplier=1000.0),
    ).create(device="cpu:0")


def score(algorithm: d3rlpy.algos.IQL, env: gymnasium.Env, episodes: int) -> float:
    returns = []
    for number in range(episodes):
        observation, total, over = env.reset(seed=FIRST_EPISODE + number)[0], 0.0, False
        while not over:
            action = algorithm.predict(observation[None].astype(np.float32))[0]
            observation, reward, terminal, timeout, _ = env.step(action)
            total, over = total + float(reward), terminal or timeout
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    log = minari.load_dataset(args.dataset)
    dataset, env = load(log), log.recover_environment()
    for seed in args.seeds:
        d3rlpy.seed(seed)
        algorithm, began = iql(args.updates), time.process_time()
        algorithm.fit(
            dataset,
            n_steps=args.updates,
            n_steps_per_epoch=args.updates,
            logger_adapter=NoopAdapterFactory(),
            show_progress=False,
        )
        used = time.process_time() - began
        row = {"dataset": args.dataset, "seed": seed, "updates": args.updates, "seconds": round(used, 1)}
        print(json.dumps(row | {"mean": score(algorithm, env, args.episodes)}), flush=True)


if __name__ == "__main__":
    main()
