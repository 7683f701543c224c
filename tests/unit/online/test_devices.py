"""Tensors of one computation live on one device: tested on ``meta``, in the source, and on a GPU if any."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from point_mass import PointMass, make_ppo

from unio4_lib.learning.evaluation import EpisodeStats, evaluate
from unio4_lib.learning.finetune import FineTuning
from unio4_lib.learning.loop import Metrics, to_numbers
from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.rollout import Rollout
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig

LIBRARY = Path(__file__).parents[3] / "unio4_lib"
META = torch.device("meta")  # shapes and devices without numbers: an operation across devices fails
FACTORIES = {
    *("tensor", "zeros", "ones", "full", "empty", "eye", "arange", "linspace"),
    *("rand", "randn", "randint", "randperm"),
}
MOVED_WITH_THEIR_MODULE = {"self.register_buffer", "nn.Parameter"}


def homeless(tree: ast.AST) -> Iterator[ast.Call]:
    """Tensors that are made on the default device, whatever the others around them live on."""
    fine: set[ast.AST] = set()
    for node in ast.walk(tree):  # parents come before children
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if ast.unparse(called) in MOVED_WITH_THEIR_MODULE:
            fine.update(part for argument in node.args for part in ast.walk(argument))
        if not isinstance(called, ast.Attribute):
            continue
        if called.attr == "to":
            fine.update(ast.walk(called.value))
        made = called.attr in FACTORIES and ast.unparse(called.value) == "torch"
        if made and node not in fine and all(word.arg != "device" for word in node.keywords):
            yield node


def test_every_tensor_says_where_it_lives() -> None:
    faults = [
        f"{path.relative_to(LIBRARY)}:{node.lineno} {ast.unparse(node)}"
        for path in sorted(LIBRARY.rglob("*.py"))
        for node in homeless(ast.parse(path.read_text()))
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch.tensor(1.0)", 1),
        ("torch.tensor(1.0, device=here)", 0),
        ("torch.randperm(3).to(here)", 0),
        ("f(torch.zeros(3))", 1),
        ("self.register_buffer('mean', torch.zeros(3))", 0),
        ("torch.zeros_like(x)", 0),
    ],
)
def test_what_a_tensor_without_a_home_is(source: str, found: int) -> None:
    assert len(list(homeless(ast.parse(source)))) == found


def on_meta() -> PPO:
    """A learner without numbers; no early stop, which would have to read one."""
    config = FinetuneConfig(num_envs=8, rollout_steps=16, epochs=2, minibatch_size=64, target_kl=None)
    policy = GaussianPolicy(PolicySpec(1, 1, 1, (8,))).to(META)
    made = make_ppo()
    return PPO(policy, made.value.to(META), PointMass(8), config, seed=0)


def some_rollout(steps: int = 16, envs: int = 8) -> Rollout:
    wide, flat = torch.empty(steps, envs, 1, device=META), torch.empty(steps, envs, device=META)
    return Rollout(wide, wide, wide, flat, flat, flat.bool(), flat.bool())


def test_metrics_of_an_update_live_where_the_policy_lives() -> None:
    ppo = on_meta()
    metrics = ppo.update(some_rollout()) | ppo.warm_up(some_rollout(), 2)
    assert {name for name, value in metrics.items() if value.device != META} == set()


def test_what_the_learner_earned_lives_where_the_policy_lives() -> None:
    run = FineTuning(GaussianPolicy(PolicySpec(1, 1, 1, (8,))), FinetuneConfig(), PointMass, seed=0)
    run.ppo.collector.recent_returns.extend([1.0, 3.0])
    run.ppo.device = META
    assert run._acting()["acting/sampled_return"].device == META


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_fine_tuning_on_a_gpu() -> None:
    config = FinetuneConfig(
        env_steps=2048, num_envs=8, rollout_steps=64, minibatch_size=64, warmup_steps=512, evaluate_every=1024
    )
    policy = GaussianPolicy(PolicySpec(1, 1, 1, (8,))).to("cuda")
    run, seen = FineTuning(policy, config, PointMass, seed=0), []

    def measure(current: GaussianPolicy, *, sampled: bool = False) -> EpisodeStats:
        return evaluate(current.act, PointMass, 4, 7)

    def follow(env_steps: int, metrics: Metrics) -> None:
        seen.append(to_numbers(metrics))

    assert len(list(run.run(measure, follow))) == 3
    assert {"policy/epochs", "acting/sampled_return"} <= seen[-1].keys()
