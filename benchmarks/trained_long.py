"""Scores of off-policy learners that train for long on one dataset, at several ages and by several seeds.

    python benchmarks/trained_long.py iql minari:unio4/hopper/medium-v0 --ages 10000 50000 100000 --seeds 0 1
    python benchmarks/trained_long.py rebrac minari:unio4/hopper/medium-v0 --set train.batch_size=1024

Seeds train side by side, each in a thread and on a GPU in a stream of its own; other processes score their
policies meanwhile. One line of JSON for each policy.
"""

import argparse
import copy
import json
import math
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch

from unio4_lib.learning.loop import run_loop
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.learning.threads import side_by_side, torch_threads
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
    draws = torch.Generator().manual_seed(seed)
    learner = import_module(METHODS[config.method].partition(":")[0]).ROOM.make(data, config, draws)
    training = OfflineTraining(learner, data, config.train, seed=seed)
    every = math.gcd(*ages)
    for entry in run_loop(training, ages[-1], name=config.method, evaluate_every=every, log_every=every):
        if entry.step in ages:
            yield entry.step, entry.seconds, copy.deepcopy(learner.policy).cpu()


def score_both_ways(task: Task, policy: Policy, episodes: int) -> dict[str, float]:
    with torch_threads(1):
        return {
            way: float(score(task, policy, episodes, 77, sampled=way == "sampled").mean)
            for way in ("mean", "sampled")
        }


def stream_of_its_own(device: torch.device) -> AbstractContextManager[object]:
    """What waits for nobody else's work on the device."""
    if device.type == "cpu":
        return nullcontext()
    torch.cuda.synchronize(device)
    return torch.cuda.stream(torch.cuda.Stream(device))


def main() -> None:
    args = arguments()
    ages = sorted(args.ages)
    overrides = [f"train.steps={ages[-1]}", *args.set]
    config: Any = load_config(dataset=args.dataset, method=args.method, overrides=overrides)
    transitions, device = load_transitions(args.dataset), choose_device(config)
    data = OfflineData.build(transitions, config.prepare, discount=config.train.discount, device=device)
    task = Task.of(transitions)

    with ProcessPoolExecutor(args.scorers, mp_context=get_context("spawn")) as scorers:

        def follow(seed: int) -> None:
            with stream_of_its_own(device):
                for age, seconds, policy in trained(config, data, seed, ages):
                    row = {"method": args.method, "dataset": args.dataset, "set": args.set, "seed": seed}
                    row |= {"updates": age, "seconds": round(seconds, 1), "device": device.type}
                    scores = scorers.submit(score_both_ways, task, policy, args.episodes)
                    scores.add_done_callback(partial(tell, row))

        side_by_side([partial(follow, seed) for seed in args.seeds])


def tell(row: dict[str, Any], scores: Future[dict[str, float]]) -> None:
    print(json.dumps(row | scores.result()), flush=True)


if __name__ == "__main__":
    main()
