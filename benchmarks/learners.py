"""Milliseconds of one update of each learner, and what its products of matrices alone would take.

    python benchmarks/learners.py --methods iql td3_bc --set iql.layer_norm=true
    python benchmarks/learners.py --methods critics cloning dynamics --set "critics.q_hidden=[256, 256]"
    python benchmarks/learners.py --methods iql --profile

Random rows of Hopper's size, one thread, processor time, the least of several rounds in turn. The floor is
the arithmetic of the products by the rate of a product of 256 x 256 matrices, measured beside it.
"""

import argparse
import time
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unio4_lib.judging.dynamics import DynamicsTrainer
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import CriticTrainer
from unio4_lib.learning.loop import Trainer
from unio4_lib.learning.memory import keep_freed_memory
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OfflineTraining
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import METHODS, find_method

EPISODE = 1000  # rows
SIDE, PRODUCTS = 256, 200  # of the matrices behind the floor
OF_UNIO4 = ("critics", "cloning", "dynamics")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [name for name in METHODS if find_method(name).pipeline == "offpolicy"]
    parser.add_argument("--methods", nargs="+", default=[*names, *OF_UNIO4], choices=[*names, *OF_UNIO4])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--observations", type=int, default=11, help="numbers in an observation")
    parser.add_argument("--actions", type=int, default=3, help="numbers in an action")
    parser.add_argument("--updates", type=int, default=20, help="in a round")
    parser.add_argument("--rounds", type=int, default=5, help="of which the fastest counts")
    parser.add_argument("--set", action="append", default=[], help="settings of all that have them")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    return parser.parse_args()


def random_data(rows: int, observations: int, actions: int) -> OfflineData:
    """Rows that mean nothing, in whole episodes."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    ends = torch.zeros(rows, dtype=torch.bool)
    ends[EPISODE - 1 :: EPISODE] = True
    return OfflineData(
        observations=normal(rows, observations),
        actions=torch.tanh(normal(rows, actions)),
        rewards=normal(rows),
        environment_rewards=normal(rows),
        next_observations=normal(rows, observations),
        terminals=torch.zeros(rows),
        episode_ends=ends,
        returns=10.0 * normal(rows),
        starts=torch.arange(0, rows, EPISODE),
        observation_mean=torch.zeros(observations),
        observation_std=torch.ones(observations),
        action_low=-torch.ones(actions),
        action_high=torch.ones(actions),
    )


def make_trainer_of_unio4(name: str, data: OfflineData, overrides: list[str]) -> Trainer:
    """One of Uni-O4's own; critics bootstrap from the start."""
    own = [text for text in overrides if text.partition(".")[0] not in METHODS]
    config: Any = load_config(dataset="none", overrides=own)
    if name == "critics":
        return CriticTrainer(data, config.critics.model_copy(update={"monte_carlo_steps": 0}), seed=0)
    if name == "cloning":
        return CloningTrainer(data, config.behavior, seed=0)
    return DynamicsTrainer(data, config.dynamics, seed=0, termination=None)


def make_training(name: str, data: OfflineData, overrides: list[str]) -> Trainer:
    """The offline training of a method with its defaults."""
    if name in OF_UNIO4:
        return make_trainer_of_unio4(name, data, overrides)
    of_unio4 = ("critics.", "behavior.", "dynamics.")
    overrides = [text for text in overrides if not text.startswith(of_unio4)]
    own = [text for text in overrides if text.partition(".")[0] not in set(METHODS) - {name}]
    config: Any = load_config(dataset="none", method=name, overrides=own)
    room = import_module(METHODS[name].partition(":")[0]).ROOM
    learner = room.make(data, config, torch.Generator().manual_seed(0))
    return OfflineTraining(learner, data, config.train, seed=0)


def timed(training: Trainer, updates: int) -> float:
    """Milliseconds of processor time for one update."""
    begun = time.process_time()
    for _ in range(updates):
        training.step()
    return (time.process_time() - begun) / updates * 1e3


def product_rate() -> float:
    """Billions of operations in a second, of products alone."""
    left, right, out = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)
        best = min(best, time.process_time() - begun)
    return 2 * SIDE**3 * PRODUCTS / best / 1e9


def operations(training: Trainer, updates: int = 2) -> float:
    """Billions of operations in the products of one update."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(updates):
            training.step()
    return counter.get_total_flops() / updates / 1e9


def calls(training: Trainer, updates: int, show: bool) -> float:
    """Operators called in one update; ``show`` prints the dearest."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(updates):
            training.step()
    found = seen.key_averages()
    if show:
        print(found.table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))
    return sum(entry.count for entry in found if entry.key.startswith("aten::")) / updates


def main() -> None:
    args = arguments()
    keep_freed_memory()
    data = random_data(args.rows, args.observations, args.actions)
    trainings = {name: make_training(name, data, args.set) for name in args.methods}
    with torch_threads(1):
        times = {name: timed(training, 5) for name, training in trainings.items()}  # untimed, as it were
        times = dict.fromkeys(times, float("inf"))
        for _ in range(args.rounds):
            for name, training in trainings.items():
                times[name] = min(times[name], timed(training, args.updates))
        rate = product_rate()
        for name, training in trainings.items():
            work = operations(training)
            floor = f"products {work:5.2f} GFLOP, at least {work / rate * 1e3:5.2f} ms at {rate:.0f} GFLOP/s"
            operators = calls(training, 4, args.profile)
            print(f"{name:8} {times[name]:6.2f} ms  {floor}  {operators:5.0f} operators")


if __name__ == "__main__":
    main()
