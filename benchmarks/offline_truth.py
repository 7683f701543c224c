"""What the offline half really achieves: the true returns behind every estimate, choice and gate decision.

    python benchmarks/offline_truth.py measure minari:unio4/hopper/medium-v0 --preset standard --out a.json
    python benchmarks/offline_truth.py table *.json

`measure` runs the stages up to improve-policy as a run would and then, beside it, scores in the simulator
what a run must not look at: every judged policy, and every candidate that came before the gate. `table`
prints one line for each file, and the figures of the gate and the judge over all of them.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4 import offline_policy
from unio4_lib.methods.unio4 import trainings as method
from unio4_lib.methods.unio4.learners import Learner
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import StageConfig, config_digest
from unio4_lib.settings.weightings import UNIFORM
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import score

WAYS = ("mean", "sampled")


class Watched:
    """A learner whose candidates are kept, in the order in which the gate looked at them."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.seen = learner, [copy_of(learner.candidates())]

    def candidates(self) -> GaussianPolicy:
        found = self.learner.candidates()
        self.seen.append(copy_of(found))
        return found

    def step(self) -> Metrics:
        return self.learner.step()

    def keep(self, members: Tensor) -> None:
        self.learner.keep(members)

    def put_back(self, members: Tensor, accepted: GaussianPolicy) -> None:
        self.learner.put_back(members, accepted)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)


def copy_of(policy: GaussianPolicy) -> GaussianPolicy:
    """A copy that later steps do not change."""
    return policy.members(range(policy.spec.members)).requires_grad_(False)


@dataclass
class Stages:
    """What comes before improvement, each part made once and kept in a folder that calls may share."""

    config: UniO4Config
    cache: Path | None
    seconds: dict[str, float] = field(default_factory=dict)  # of the processor

    def make(self, name: str, part: StageConfig, build: Callable[[], Any]) -> Any:
        source = f"{self.config.dataset} {self.config.seed} {config_digest(part)}"
        key = hashlib.sha256(source.encode()).hexdigest()[:16]
        kept = None if self.cache is None else self.cache / f"{name}-{key}.pt"
        if kept is not None and kept.is_file():
            made, self.seconds[name] = torch.load(kept, weights_only=False)
            return made
        begun = time.process_time()
        made = build()
        self.seconds[name] = time.process_time() - begun
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save((made, self.seconds[name]), kept)
        return made


def measure(
    config: UniO4Config, episodes: int, along: int, cache: Path | None, scorers: Executor
) -> dict[str, Any]:
    """The offline phase of one run, and the truth beside it."""
    started = time.perf_counter()
    stages, silent, watched = Stages(config, cache), Reporter(None), list[Watched]()
    transitions = stages.make("data", config.prepare, lambda: load_transitions(config.dataset))
    task, device = Task.of(transitions), choose_device(config)
    data = OfflineData.build(transitions, config.prepare, discount=config.critics.discount, device=device)
    behavior = stages.make("clones", config.behavior, lambda: method.clone_behavior(data, config, silent)[0])
    critics = stages.make("critics", config.critics, lambda: method.fit_critics(data, config, silent)[0])
    model = stages.make("models", config.dynamics, lambda: method.fit_dynamics(data, task, config, silent)[0])

    def watch(*inputs: Any) -> Watched:
        watched.append(Watched(offline_policy.make_learner(*inputs)))
        return watched[0]

    begun = time.process_time()
    found = offline_policy.improve_policy(
        data,
        behavior,
        offline_policy.World.of(critics, model, config),
        config,
        silent,
        time_limit=task.time_limit(),
        make_learner=watch,
    )
    stages.seconds["improve"] = time.process_time() - begun

    wall, truth = time.perf_counter() - started, Truth(scorers, task, config.evaluate.seed)
    plain = [i for i, name in enumerate(config.behavior.member_weightings()) if name == UNIFORM]
    of_plain, of_portfolio = (
        truth.ask(policies, episodes) for policies in (behavior.members(plain), found.portfolio)
    )
    of_accepted = truth.ask(found.policies, episodes)
    of_candidates = [truth.ask(policies, along) for policies in watched[0].seen]
    return {
        "dataset": config.dataset,
        "seed": config.seed,
        "seconds": stages.seconds,
        "device": device.type,
        "wall": wall,
        "data": float(transitions.episode_returns().mean()),
        "plain": told(of_plain),
        "portfolio": [
            {"name": member.name, "estimate": member.estimates, "true": returns}
            for member, returns in zip(found.members, told(of_portfolio), strict=True)
        ],
        "begun": found.start,
        "chosen": found.chosen,
        "acts": found.acts,
        "trust": None if found.trust is None else vars(found.trust),
        "decisions": [vars(entry) for entry in found.decisions],
        "candidates": [told(asked) for asked in of_candidates],
        "accepted": told(of_accepted),
    }


@dataclass
class Truth:
    """Returns in the simulator by every way of acting, found by other processes meanwhile."""

    scorers: Executor
    task: Task
    seed: int

    def ask(self, policies: GaussianPolicy, episodes: int) -> list[dict[str, Future[float]]]:
        """One entry for each policy."""
        alone = [policies.members([member]).cpu() for member in range(policies.spec.members)]
        return [
            {
                way: self.scorers.submit(mean_return, self.task, policy, episodes, self.seed, way)
                for way in WAYS
            }
            for policy in alone
        ]


def mean_return(task: Task, policy: GaussianPolicy, episodes: int, seed: int, way: str) -> float:
    with torch_threads(1):
        return float(score(task, policy, episodes, seed, sampled=way == "sampled").mean)


def told(asked: list[dict[str, Future[float]]]) -> list[dict[str, float]]:
    return [{way: found.result() for way, found in ways.items()} for ways in asked]


def both(values: dict[str, float]) -> float:
    """One figure for both ways of acting, as the judge ranks."""
    return sum(values.values()) / len(values)


COLUMNS = (
    *("dataset", "seed", "data", "plain clones", "start (mean / sampled)", "best of portfolio"),
    *("delivered (mean / sampled)", "acts", "over clones", "accepted", "trust", "judge", "along", "cpu s"),
)


def cells(run: dict[str, Any]) -> list[Any]:
    """One run as a row of a table."""
    delivered = run["accepted"][run["chosen"]]
    start = run["portfolio"][run["begun"][run["chosen"]]]
    plain = np.mean([member["mean"] for member in run["plain"]])
    best = {way: max(member["true"][way] for member in run["portfolio"]) for way in WAYS}
    trust, score = run["trust"], delivered[run["acts"]]
    passed = sum(entry["accepted"] for entry in run["decisions"])
    return [
        *(run["dataset"], run["seed"], f"{run['data']:.0f}", f"{plain:.0f}"),
        *(f"{start['name']}: {pair(start['true'])}", pair(best), pair(delivered)),
        *(f"{run['acts']} {score:.0f}", f"{score / plain:.2f}", f"{passed} of {len(run['decisions'])}"),
        "-" if trust is None else f"{trust['modeled'] / trust['recorded']:.2f}",
        *(f"{spearman_all(run):.2f}", f"{spearman_path(run):.2f}", f"{sum(run['seconds'].values()):.0f}"),
    ]


def pair(values: dict[str, float]) -> str:
    return " / ".join(f"{values[way]:.0f}" for way in WAYS)


def spearman_all(run: dict[str, Any]) -> float:
    """Estimates and truth over the portfolio and all candidates together."""
    estimates = [both(member["estimate"]) for member in run["portfolio"]]
    true = [both(member["true"]) for member in run["portfolio"]]
    path = path_of(run)
    return float(spearmanr(estimates + [e for e, _ in path], true + [t for _, t in path])[0])


def spearman_path(run: dict[str, Any]) -> float:
    """The same along improvement alone."""
    path = path_of(run)
    return float(spearmanr(*zip(*path, strict=True))[0]) if len(path) > 2 else float("nan")


def path_of(run: dict[str, Any]) -> list[tuple[float, float]]:
    """Estimate and truth of every candidate that the gate looked at."""
    tracks = len(run["accepted"])
    return [
        (entry["candidate"], both(run["candidates"][1 + place // tracks][entry["member"]]))
        for place, entry in enumerate(run["decisions"])
    ]


def gains_of(run: dict[str, Any]) -> Iterator[tuple[float, float, bool]]:
    """Of each candidate: estimated and true gain as a share of what stood there, and whether it passed."""
    tracks = len(run["accepted"])
    current = [both(member) for member in run["candidates"][0]]
    for place, entry in enumerate(run["decisions"]):
        track = entry["member"]
        true = both(run["candidates"][1 + place // tracks][track])
        estimated = entry["difference"] / abs(entry["current"])
        yield estimated, (true - current[track]) / abs(current[track]), entry["accepted"]
        if entry["accepted"]:
            current[track] = true


def gate_figures(runs: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    """Replacements accepted, of them truly better; true gains above 5 %, of them accepted."""
    seen = [(true, accepted) for run in runs for _, true, accepted in gains_of(run)]
    passed = [true for true, accepted in seen if accepted]
    gained = [accepted for true, accepted in seen if true > 0.05]
    return len(passed), sum(true > 0 for true in passed), len(gained), sum(gained)


def table(files: list[Path]) -> None:
    """All runs, and the gate and the judge over them."""
    runs = [json.loads(file.read_text()) for file in files]
    for row in (COLUMNS, ["---"] * len(COLUMNS), *map(cells, runs)):
        print("| " + " | ".join(map(str, row)) + " |")
    accepted, right, gains, seen = gate_figures(runs)
    print(f"\ngate: {right} of {accepted} accepted truly better; {seen} of {gains} true gains above 5 % seen")
    overall, path = (np.nanmedian([figure(run) for run in runs]) for figure in (spearman_all, spearman_path))
    print(f"judge: Spearman in the median {overall:.2f} over all policies, {path:.2f} along improvement")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("dataset")
    one.add_argument("--preset", default="quick")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--episodes", type=int, default=50)
    one.add_argument("--along", type=int, help="episodes for each candidate of the gate, if not as many")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument(
        "--cache", type=Path, help="folder for clones, critics and models that several calls share"
    )
    one.add_argument("--scorers", type=int, default=1, help="processes that score")
    many = commands.add_parser("table")
    many.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "table":
        table(arguments.files)
    else:
        torch.set_num_threads(1)
        chosen = load_config(
            preset=arguments.preset, overrides=arguments.set, dataset=arguments.dataset, seed=arguments.seed
        )
        assert isinstance(chosen, UniO4Config)
        along = arguments.along or arguments.episodes
        with ProcessPoolExecutor(arguments.scorers, mp_context=get_context("spawn")) as pool:
            result = measure(chosen, arguments.episodes, along, arguments.cache, pool)
        arguments.out.write_text(json.dumps(result))
        table([arguments.out])
