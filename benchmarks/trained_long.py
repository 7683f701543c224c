"""Scores of off-policy learners that train for long on one dataset, at several ages and by several seeds.

    python benchmarks/trained_long.py iql minari:unio4/hopper/medium-v0 --ages 10000 50000 100000 --seeds 0 1
    python benchmarks/trained_long.py rebrac minari:unio4/hopper/medium-v0 --set train.batch_size=1024

Seeds train one after the other, on a GPU where there is one; policies are scored by other processes
meanwhile. One line of JSON for each policy.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch

from unio4_lib.learning.loop import run_loop
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import METHODS
from unio4_lib.nets.policy import Policy
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import score


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("dataset")
    parser.add_argument("--ages", type=int, nargs="+", default=[50_000], help="updates; the last is the end")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--scorers", type=int, default=2, help="processes that score")
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_args()


def trained(
    config: Any, data: OfflineData, seed: int, ages: list[int]
) -> Iterator[tuple[int, float, Policy]]:
    """Age, seconds of training so far, and the policy of each age."""
    draws = torch.Generator(data.observations.device).manual_seed(seed)
    learner = import_module(METHODS[config.method].partition(":")[0]).ROOM.make(data, config, draws)
    training = OfflineTraining(learner, data, config.train, seed=seed)
    for entry in run_loop(training, ages[-1], name=config.method, evaluate_every=10_000, log_every=1_000):
        if entry.step in ages:
            yield entry.step, entry.seconds, copy.deepcopy(learner.policy).cpu()


def score_both_ways(task: Task, policy: Policy, episodes: int) -> dict[str, float]:
    with torch_threads(1):
        return {
            way: float(score(task, policy, episodes, 77, sampled=way == "sampled").mean)
            for way in ("mean", "sampled")
        }


def main() -> None:
    args = arguments()
    ages = sorted(args.ages)
    overrides = [f"train.steps={ages[-1]}", *args.set]
    config: Any = load_config(dataset=args.dataset, method=args.method, overrides=overrides)
    transitions, device = load_transitions(args.dataset), choose_device(config)
    data = OfflineData.build(transitions, config.prepare, discount=config.train.discount, device=device)
    task, waiting = Task.of(transitions), list[tuple[dict[str, Any], Future[dict[str, float]]]]()
    with ProcessPoolExecutor(args.scorers, mp_context=get_context("spawn")) as pool:
        for seed in args.seeds:
            for age, seconds, policy in trained(config, data, seed, ages):
                row = {"method": args.method, "dataset": args.dataset, "set": args.set, "seed": seed}
                row |= {"updates": age, "seconds": round(seconds, 1), "device": device.type}
                waiting.append((row, pool.submit(score_both_ways, task, policy, args.episodes)))
        for row, scores in waiting:
            print(json.dumps(row | scores.result()), flush=True)


if __name__ == "__main__":
    main()
