"""Improvement: what may change an accepted policy."""

import copy
from typing import Any

import pytest
import torch
from offline_worlds import (
    PointMassModel,
    linear_policies,
    make_data,
    parameters_of,
    point_mass_transitions,
    same_bits,
    zero_critics,
)
from torch import Tensor

from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.loop import Metrics
from unio4_lib.methods.unio4.improve import ImproveTrainer, rank
from unio4_lib.nets.policy import GaussianPolicy, copy_members, stack_policies
from unio4_lib.settings.model import ImproveConfig

DATA = make_data(point_mass_transitions(episodes=20))


def make_config(**values: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "steps": 100,
        "evaluate_every": 10,
        "horizon": 20,
        "starts": 16,
        "margin": 0.0,
        "model_noise": True,
        "patience": 6,
    }
    return ImproveConfig(**{**settings, **values})


class ListedEstimates:
    """Estimates by decree: element k of ``gains`` is what candidates win at check k, for each member.

    Sampled actions are worth half of what the mean action is.
    """

    ways = ("mean", "sampled")

    def __init__(self, gains: list[list[float]]) -> None:
        self.gains, self.seeds = gains, list[int]()

    def estimate(self, policies: GaussianPolicy, *, seed: int, starts: int | None = None) -> Tensor:
        self.seeds.append(seed)
        base = torch.randn(16, generator=torch.Generator().manual_seed(0)).expand(policies.spec.members, 16)
        gain = torch.tensor(self.gains[len(self.seeds) - 1])
        # A little noise: differences without any would have no standard error.
        mean = base + torch.cat([gain, torch.zeros_like(gain)])[:, None] * torch.linspace(0.9, 1.1, 16)
        return torch.stack([mean, 0.5 * mean])


class DriftingLearner:
    """Every step adds one to all parameters; remembers what it was told."""

    def __init__(self, start: GaussianPolicy) -> None:
        self.policy = copy.deepcopy(start)
        self.told: list[tuple[str, list[bool]]] = []

    def candidates(self) -> GaussianPolicy:
        return self.policy

    def step(self) -> Metrics:
        with torch.no_grad():
            for parameter in self.policy.parameters():
                parameter.add_(1.0)
        return {}

    def keep(self, members: Tensor) -> None:
        self.told.append(("keep", members.tolist()))

    def put_back(self, members: Tensor, accepted: GaussianPolicy) -> None:
        self.told.append(("put back", members.tolist()))
        copy_members(accepted, self.policy, members)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def decreed(gains: list[list[float]], **values: Any) -> tuple[ImproveTrainer, Any, DriftingLearner]:
    evaluator: Any = ListedEstimates(gains)
    start = linear_policies([0.5] * len(gains[0]))
    learner = DriftingLearner(start)
    return ImproveTrainer(start, learner, evaluator, make_config(**values), seed=40), evaluator, learner


def test_a_closed_gate_keeps_the_start_to_the_bit() -> None:
    trainer, _, learner = decreed([[-1.0, 0.0]] * 4, patience=100)
    before = parameters_of(trainer.accepted)
    for _ in range(4):
        for _ in range(5):
            trainer.step()
        trainer.evaluate()
    assert same_bits(parameters_of(trainer.accepted), before)
    assert not same_bits(parameters_of(learner.policy), before)
    assert not any(entry.accepted for entry in trainer.log)
    assert learner.told == []


def test_an_open_gate_takes_each_candidate_as_it_is() -> None:
    trainer, _, learner = decreed([[1.0, 1.0]] * 3)
    for _ in range(3):
        trainer.step()
        assert not same_bits(parameters_of(trainer.accepted), parameters_of(learner.policy))
        trainer.evaluate()
        assert same_bits(parameters_of(trainer.accepted), parameters_of(learner.policy))
    assert learner.told == [("keep", [True, True])] * 3
    trainer.step()  # the accepted policy is a copy, not the same tensors
    assert not same_bits(parameters_of(trainer.accepted), parameters_of(learner.policy))


def test_what_is_delivered_is_the_accepted_policy_and_not_the_last_iterate() -> None:
    """Defect 5 of the published code. Member 1 alone passes, at the first check alone."""
    trainer, _, learner = decreed([[-1.0, 1.0], [-1.0, -1.0]], patience=100)
    start = parameters_of(trainer.accepted)
    trainer.step()
    passed = parameters_of(learner.policy)
    trainer.evaluate()
    trainer.step()
    trainer.evaluate()
    for old, new, accepted in zip(start, passed, trainer.accepted.parameters(), strict=True):
        assert torch.equal(accepted[0], old[0])
        assert torch.equal(accepted[1], new[1])
    assert [(entry.step, entry.member, entry.accepted, entry.refusal) for entry in trainer.log] == [
        (1, 0, False, "not sure"), (1, 1, True, None), (2, 0, False, "not sure"), (2, 1, False, "not sure")
    ]  # fmt: skip


def test_the_log_tells_both_ways_of_acting() -> None:
    trainer, _, _ = decreed([[2.0]])
    trainer.step()
    figures = trainer.evaluate()
    (entry,) = trainer.log
    assert entry.acting["mean"][0] - entry.acting["mean"][1] == pytest.approx(2.0, abs=1e-5)
    assert entry.acting["sampled"][0] - entry.acting["sampled"][1] == pytest.approx(1.0, abs=1e-5)
    assert entry.difference == pytest.approx(1.5, abs=1e-5)
    assert entry.candidate - entry.current == pytest.approx(1.5, abs=1e-5)
    assert float(figures["improve/estimate"]) == pytest.approx(entry.candidate)


def test_after_patience_refusals_a_candidate_is_put_back_alone() -> None:
    # Member 0 is refused three times in a row; member 1 passes in between, so its count starts again.
    trainer, _, learner = decreed([[-1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], patience=3)
    for check in range(3):
        for _ in range(3):
            trainer.step()
        before = parameters_of(learner.policy)
        trainer.evaluate()
        if check < 2:
            assert same_bits(parameters_of(learner.policy), before)
    assert trainer.refusals.tolist() == [0, 1]
    assert learner.told == [("keep", [False, True]), ("put back", [True, False])]
    for candidate, accepted, old in zip(
        learner.policy.parameters(), trainer.accepted.parameters(), before, strict=True
    ):
        assert torch.equal(candidate[0], accepted[0])
        assert torch.equal(candidate[1], old[1])


def test_every_check_has_draws_of_its_own() -> None:
    """Defect 3 of the published code: nothing is compared with a score of an earlier draw."""
    trainer, evaluator, _ = decreed([[0.0, 0.0]] * 3)
    for _ in range(3):
        trainer.step()
        trainer.evaluate()
    assert len(set(evaluator.seeds)) == 3


def test_policies_are_ranked_by_all_ways_of_acting_alike() -> None:
    estimates = torch.tensor([[[1.0, 3.0], [5.0, 5.0], [4.0, 4.0]], [[9.0, 9.0], [0.0, 0.0], [4.0, 4.0]]])
    assert rank(estimates) == [0, 2, 1]
    assert rank(torch.zeros(2, 3, 4)) == [0, 1, 2]  # equals keep their order


def test_stacking_and_copying_keep_members_apart() -> None:
    first, second = linear_policies([0.1, 0.2]), linear_policies([0.3])
    stacked = stack_policies([first, second])
    assert stacked.spec.members == 3
    states = torch.linspace(-1, 1, 5)[:, None]
    expected = torch.cat([policy.distribution(states).mean for policy in (first, second)])
    torch.testing.assert_close(stacked.distribution(states).mean, expected)
    target = linear_policies([7.0, 8.0])
    copy_members(first, target, torch.tensor([False, True]))
    torch.testing.assert_close(
        target.distribution(states).mean, linear_policies([7.0, 0.2]).distribution(states).mean
    )


def test_equal_candidates_never_pass() -> None:
    """Before any step the candidate is the accepted policy: the paired difference is exactly zero."""
    model: Any = PointMassModel(noise=0.3)
    for rule in ({}, {"confidence": 0.5}, {"margin": 0.05}):
        config = make_config(**rule)
        evaluator = PolicyEvaluator(DATA, model, zero_critics(), config, time_limit=20)
        start = linear_policies([0.5, 1.0])
        trainer = ImproveTrainer(start, DriftingLearner(start), evaluator, config, seed=0)
        trainer.evaluate()
        assert [(entry.accepted, entry.difference) for entry in trainer.log] == [(False, 0.0)] * 2
