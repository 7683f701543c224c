"""Facts of stages against brute force, on worlds whose truth is known."""

import json

import made_records
import numpy as np
import pytest
import torch
from offline_worlds import (
    PointMassModel,
    linear_policies,
    make_data,
    make_transitions,
    point_mass_transitions,
)
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.learning.critics import Critics
from unio4_lib.methods.unio4 import facts
from unio4_lib.methods.unio4.fact_types import BehaviorFacts, CriticsFacts, DynamicsFacts, JudgeFacts, Point
from unio4_lib.nets.policy import Gaussian
from unio4_lib.report.data_facts import dataset_facts
from unio4_lib.report.facts import SCHEMA, DatasetFacts, Facts
from unio4_lib.report.part import read_part
from unio4_lib.settings.model import CriticsConfig


def survives(found: Facts) -> bool:
    """A file gives the same facts again, and has a version."""
    text = json.dumps(found.to_json(), allow_nan=False)
    return read_part(type(found), json.loads(text), "x", "facts").to_json() == found.to_json()


@pytest.mark.parametrize(
    ("stage", "kind"),
    {
        "prepare-dataset": DatasetFacts,
        "clone-behavior": BehaviorFacts,
        "fit-critics": CriticsFacts,
        "fit-dynamics": DynamicsFacts,
        "report": JudgeFacts,
    }.items(),
)
def test_a_file_has_the_names_that_it_always_had(stage: str, kind: type[Facts]) -> None:
    told = made_records.facts()[stage]
    assert read_part(kind, told, "x", "facts").to_json() == {"schema_version": SCHEMA} | told


def test_dataset_facts_count_what_is_there() -> None:
    transitions = point_mass_transitions(episodes=20, length=10)
    found = dataset_facts("mine", transitions)
    assert survives(found)
    assert found.returns and found.lengths and found.ends
    assert sum(found.returns.histogram.counts) == 20
    assert sum(found.lengths.histogram.counts) == 20
    assert sum(found.actions[0].counts) == 200
    assert found.ends.timeouts == 20
    at_low = float((transitions.actions <= -0.998).mean())
    assert found.actions[0].share_at_low == pytest.approx(at_low)
    assert found.observations[0].max == pytest.approx(float(transitions.observations.max()))
    assert found.observations[0].std == pytest.approx(float(transitions.observations.std()), rel=1e-4)


def test_divergence_is_torchs_kl() -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(3, 7, 2, generator=g), torch.randn(3, 7, 2, generator=g)
    found = facts.pairwise_divergence(Gaussian(mean, log_std))
    for i in range(3):
        for j in range(3):
            left, right = (Independent(Normal(mean[k], log_std[k].exp()), 1) for k in (i, j))
            assert float(found[i, j]) == pytest.approx(float(kl_divergence(left, right).mean()), abs=1e-5)


def test_behavior_facts_of_known_policies() -> None:
    data = make_data(point_mass_transitions(episodes=10))
    policy = linear_policies([0.5, 0.5, 2.0])
    holdout = torch.arange(0, 100)
    found = facts.behavior_facts(policy, data, holdout)
    assert survives(found)
    wanted = policy.distribution(data.observations[:100]).log_prob(data.actions[:100]).mean(dim=1)
    assert [member.log_likelihood for member in found.members] == pytest.approx(wanted.tolist())
    assert found.divergence[0][1] == pytest.approx(0.0, abs=1e-5)  # the same policy
    assert found.divergence[0][2] > 0.1
    assert found.members[0].std == pytest.approx(0.1, rel=1e-2)


class ExactCritics(Critics):
    """V is the Monte-Carlo return itself, looked up by the state."""

    def __init__(self, offset: float) -> None:
        super().__init__(1, 1, CriticsConfig(q_hidden=(4,), v_hidden=(4,)), generator=torch.Generator())
        self.offset = offset

    def values(self, observations: Tensor) -> Tensor:
        return observations[..., 0] + self.offset

    def advantages(self, observations: Tensor, actions: Tensor) -> Tensor:
        return actions[..., 0]


def test_critics_facts_see_a_bias() -> None:
    # One row an episode: the return is the reward, which is the state.
    states = np.linspace(0.0, 10.0, 240)[:, None]
    ends = np.ones(240, bool)
    actions = np.where(np.arange(240) % 4 == 0, 0.5, -0.5)[:, None]
    rows = make_transitions(states, actions, states[:, 0], states, ends, np.zeros_like(ends))
    found = facts.critics_facts(ExactCritics(2.0), make_data(rows))
    assert survives(found)
    assert found.bias == pytest.approx(2.0, abs=1e-4)
    assert found.correlation == pytest.approx(1.0)
    assert found.positive_advantages == pytest.approx(0.25)
    assert [part.rows for part in found.bins] == [20] * 12
    for part in found.bins:
        assert part.value - part.returned == pytest.approx(2.0, abs=1e-4)


def test_k_step_error_of_the_true_model_is_the_noise_alone() -> None:
    data = make_data(point_mass_transitions(episodes=40, length=30, noise=0.0))
    found = facts.k_step_error(PointMassModel(2), data, torch.arange(len(data)), steps=5, seed=0)  # type: ignore[arg-type]
    assert found is not None
    assert np.abs(found.members).max() < 1e-5
    # What does not move is off by what moved, computed here step by step.
    generator = torch.Generator().manual_seed(0)
    starts = [row for row in range(len(data)) if row % 30 + 5 <= 30]
    chosen = [
        starts[i] for i in torch.randperm(len(starts), generator=generator)[: facts.MODEL_STARTS].tolist()
    ]
    for k, error in zip(found.steps, found.no_change, strict=True):
        moved = [float(data.next_observations[row + k - 1, 0] - data.observations[row, 0]) for row in chosen]
        assert error == pytest.approx(float(np.sqrt(np.mean(np.square(moved)))), rel=1e-4)


def test_k_step_error_never_crosses_an_episodes_end() -> None:
    data = make_data(point_mass_transitions(episodes=30, length=6, noise=0.0))
    found = facts.k_step_error(PointMassModel(1), data, torch.arange(len(data)), steps=50, seed=0)  # type: ignore[arg-type]
    assert found is not None
    assert found.steps == [1, 2, 3, 4, 5, 6]
    assert np.abs(found.members).max() < 1e-5  # a start too late would meet the next episode's state


def test_dynamics_facts_of_an_honest_model() -> None:
    """Targets drawn from the model's own distribution: its intervals hold what they promise."""
    data = make_data(point_mass_transitions(episodes=80))
    model = DynamicsModel(2, 1, 1, (8,), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    mean, log_variance, _ = model.heads(data.observations, data.actions)
    noise = torch.randn(mean[0].shape, generator=torch.Generator().manual_seed(1))
    change = mean[0] + torch.exp(0.5 * log_variance[0]) * noise
    drawn = make_data(
        make_transitions(
            data.observations, data.actions, change[:, 1], data.observations + change[:, :1],
            np.zeros(len(data), bool), np.ones(len(data), bool),
        )
    )  # fmt: skip
    only = model.elites([0])
    found = facts.dynamics_facts(only, drawn, torch.arange(len(drawn)))
    assert survives(found)
    for level, share in found.calibration:
        assert share == pytest.approx(level, abs=0.04), level
    assert found.members[0] == pytest.approx(float((change - mean[0]).square().mean()), rel=1e-3)
    assert len(found.dimensions) == 2
    assert found.k_step is not None and found.k_step.steps == [1]  # episodes of one row


def test_ope_facts_rank() -> None:
    truth = [(3.0, 0.1), (1.0, 0.1), (2.0, 0.1)]
    found = facts.ope_facts(["a", "b", "c"], [30.0, 10.0, 20.0], truth.__getitem__)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.points[1] == Point(label="b", estimate=10.0, truth=1.0, stderr=0.1)
