"""Studies behind the offline defaults: diversity of clones, and how well estimates rank policies.

    python benchmarks/offline_studies.py diversity minari:mujoco/hopper/medium-v0
    python benchmarks/offline_studies.py ranking 'collect:Hopper-v5?level=medium&steps=100000'

Both look at what a run must not look at (true returns of candidates), which is why they are no part of one.
"""

import argparse
import itertools

import numpy as np
import torch
from scipy.stats import spearmanr

from unio4_lib.config import RunConfig
from unio4_lib.config_io import load_config
from unio4_lib.data.sources import load_transitions
from unio4_lib.nets.policy import Gaussian, GaussianPolicy, stack_policies
from unio4_lib.offline.behavior import CloningTrainer, overlap
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.ope import PolicyEvaluator
from unio4_lib.progress import Reporter
from unio4_lib.stages import method

ALPHAS = (0.0, 0.3, 1.0, 3.0, 10.0)
ESTIMATORS = (
    ("return, 250 steps, discount 0.99", ["improve.horizon=250", "improve.discount=0.99"]),
    ("return, 500 steps, discount 0.995", ["improve.horizon=500", "improve.discount=0.995"]),
    ("return, 1000 steps, no discount", ["improve.horizon=1000", "improve.discount=1.0"]),
    (
        "the same with model noise",
        ["improve.horizon=1000", "improve.discount=1.0", "improve.model_noise=true"],
    ),
    ("return, 100 steps from any row", ["improve.horizon=100", "improve.start_states=dataset"]),
    ("amq-sum, 1000 steps", ["improve.estimator=amq-sum", "improve.horizon=1000"]),
    ("amq-mean, 1000 steps", ["improve.estimator=amq-mean", "improve.horizon=1000"]),
)
STARTS = 32  # per estimate: what a gate check can afford many times


def build(config: RunConfig) -> tuple[OfflineData, method.Task]:
    """The dataset as tensors, and its environment."""
    transitions = load_transitions(config.dataset)
    data = OfflineData.build(
        transitions, config.prepare, discount=config.critics.discount, device=torch.device("cpu")
    )
    return data, method.Task.of(transitions)


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
    print(
        "| alpha | bootstrap | hold-out log-likelihood | overlap | mean pairwise KL |\n|---|---|---|---|---|"
    )
    for alpha, bootstrap in [(0.0, False), *((alpha, True) for alpha in ALPHAS)]:
        overrides = [f"behavior.alpha={alpha}", f"behavior.bootstrap={str(bootstrap).lower()}"]
        config = load_config(preset="quick", overrides=overrides, dataset=dataset, seed=seed)
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
        print(f"| {alpha} | {bootstrap} | {likelihood:.3f} | {shared:.4f} | {pairwise_kl(gaussian):.3f} |")


def study_ranking(dataset: str, seed: int) -> None:
    """Rank correlation of each estimator with the true returns of the gate's own candidates."""
    config = load_config(preset="quick", overrides=[], dataset=dataset, seed=seed)
    data, task = build(config)
    reporter = Reporter(None)
    behavior, _ = method.clone_behavior(data, config, reporter)
    critics, _ = method.fit_critics(data, config, reporter)
    model, _ = method.fit_dynamics(data, task, config, reporter)
    sim = task.sim(1)
    limit = sim.max_episode_steps
    sim.close()
    trainer = method.improve_trainer(data, behavior, critics, model, config, time_limit=limit)
    policies = [behavior]
    for step in range(1, config.improve.steps + 1):
        trainer.step()
        if step % config.improve.evaluate_every == 0:
            trainer.evaluate()
            policies.append(copy_of(trainer.candidate))
    every = stack_policies(policies)
    members = range(every.spec.members)
    truth = np.array([method.score(task, every, 20, config.evaluate.seed, member=i).mean for i in members])
    base = truth[: behavior.spec.members].mean()
    print(f"{len(truth)} policies, true returns {truth.min():.0f} to {truth.max():.0f}, clones {base:.0f}")
    print("| estimate | Spearman | true mean of the best eight |\n|---|---|---|")
    for name, overrides in ESTIMATORS:
        settings = load_config(preset="quick", overrides=overrides, dataset=dataset, seed=seed).improve
        evaluator = PolicyEvaluator(data, model, critics, settings, time_limit=limit)
        estimates = evaluator.estimate(every, seed=seed, starts=STARTS).mean(dim=1).numpy()
        best = truth[np.argsort(-estimates)[:8]].mean()
        print(f"| {name} | {spearmanr(estimates, truth)[0]:.2f} | {best:.0f} |", flush=True)


def copy_of(policy: GaussianPolicy) -> GaussianPolicy:
    """A copy that later steps do not change."""
    return policy.members(range(policy.spec.members))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=["diversity", "ranking"])
    parser.add_argument("dataset")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = study_diversity if arguments.study == "diversity" else study_ranking
    study(arguments.dataset, arguments.seed)
