"""How far clones of one kind differ, and what a diversity term costs in likelihood.

python benchmarks/clone_diversity.py minari:mujoco/hopper/medium-v0
"""

import argparse
import itertools

import torch

from unio4_lib.learning.cloning import CloningTrainer, overlap
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.nets.policy import Gaussian
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.task import Task

ALPHAS = (0.0, 0.3, 1.0, 3.0, 10.0)


def build(config: UniO4Config) -> tuple[OfflineData, Task]:
    """The dataset as tensors, and its environment."""
    transitions = load_transitions(config.dataset)
    data = OfflineData.build(
        transitions, config.prepare, discount=config.critics.discount, device=torch.device("cpu")
    )
    return data, Task.of(transitions)


def pairwise_kl(gaussian: Gaussian) -> float:
    """Mean KL(pi_i || pi_j) over pairs of members and rows."""
    mean, log_std = gaussian
    pairs = []
    for i, j in itertools.permutations(range(len(mean)), 2):
        ratio = ((2 * log_std[i]).exp() + (mean[i] - mean[j]).square()) / (2 * (2 * log_std[j]).exp())
        pairs.append((log_std[j] - log_std[i] + ratio - 0.5).sum(-1).mean())
    return float(torch.stack(pairs).mean())


def study_diversity(dataset: str, seed: int) -> None:
    """Hold-out likelihood against divergence of members, over alpha."""
    print("| alpha | hold-out log-likelihood | overlap | mean pairwise KL |\n|---|---|---|---|")
    for alpha in ALPHAS:
        overrides = [
            "behavior.diversity=repulsion",
            f"behavior.alpha={alpha}",
            "behavior.weightings=[uniform]",
        ]
        config = load_config(preset="quick", overrides=overrides, dataset=dataset, seed=seed)
        assert isinstance(config, UniO4Config)
        data, _ = build(config)
        trainer = CloningTrainer(data, config.behavior, seed=seed)
        for step in range(1, config.behavior.steps + 1):
            trainer.step()
            if step % config.behavior.evaluate_every == 0:
                trainer.evaluate()
        policy = trainer.result().requires_grad_(False)
        gaussian = policy.distribution(trainer.holdout.observations)
        likelihood = float(gaussian.log_prob(trainer.holdout.actions).mean())
        shared = float(overlap(gaussian).mean())
        print(f"| {alpha} | {likelihood:.3f} | {shared:.4f} | {pairwise_kl(gaussian):.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study_diversity(arguments.dataset, arguments.seed)
