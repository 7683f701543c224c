"""Fitted Q evaluation: values that are known exactly, of policies of several kinds, side by side."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import linear_policies, make_data, make_transitions

from unio4_lib.judging.fqe import FittedEvaluation
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.nets.kinds import DeterministicPolicy
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.settings.fqe import FqeConfig

HERE, THERE, DISCOUNT = -1.0, 1.0, 0.8
CONFIG = FqeConfig(
    steps=300, hidden=(16,), batch_size=64, learning_rate=2e-2, polyak=0.1, monte_carlo_share=0.02
)
# Always up, up here and down there, always down; what they are worth from here is known.
POLICIES = linear_policies([0.0, 5.0, 0.0], [5.0, 0.0, -5.0])
TRUTH = [1.0 / (1.0 - DISCOUNT), 1.0 + DISCOUNT * 3.0, 0.0]


def two_states(rows: int = 2000) -> OfflineData:
    """Up leads there and pays 1, down leads here and pays nothing; down there ends it all and pays 3.

    Time cuts episodes after ten rows, which ends nothing. Behind a true end stands the state here.
    """
    g, columns, state, length = np.random.default_rng(0), [], HERE, 0
    for row in range(rows):
        up = bool(g.random() < 0.5)
        ends = state == THERE and not up
        following = THERE if up else HERE
        length += 1
        cut = (length == 10 or row == rows - 1) and not ends
        columns.append((state, 1.0 if up else -1.0, 3.0 if ends else float(up), following, ends, cut))
        state, length = (HERE, 0) if ends or cut else (following, length)
    x, a, r, ahead, ends_all, cuts = (np.array(column) for column in zip(*columns, strict=True))
    rows_of = make_transitions(x[:, None], a[:, None], r, ahead[:, None], ends_all, cuts)
    return make_data(rows_of, discount=DISCOUNT)


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return two_states()


def trained(data: OfflineData, policies: list[Any], **changed: Any) -> FittedEvaluation:
    config = CONFIG.model_copy(update=changed)
    trainer = FittedEvaluation(policies, data, config, discount=DISCOUNT, seed=0)
    for _ in range(config.steps):
        trainer.step()
    return trainer


def test_values_of_known_policies_come_out_exactly(data: OfflineData) -> None:
    """Of each by itself and all in one; returns of the data, in which all policies are mixed, are others."""
    found = trained(data, [POLICIES]).estimate()
    assert found.shape == (3, 2)
    assert found.mean(dim=1).tolist() == pytest.approx(TRUTH, abs=0.1)
    assert (found.std(dim=1) < 0.1).all()
    recorded = float(data.returns[data.starts].mean())
    assert all(abs(recorded - value) > 0.2 for value in TRUTH)


def test_policies_of_several_kinds_are_judged_together(data: OfflineData) -> None:
    """The one that always goes up, as a policy without a std, behind others."""
    fixed = DeterministicPolicy(PolicySpec(1, 1, 1, (2,), kind="deterministic")).requires_grad_(False)
    state = POLICIES.members([0]).net.state_dict()
    fixed.net.load_state_dict(state)
    found = trained(data, [POLICIES.members([1, 2]), fixed], critics=1).estimate()[:, 0].tolist()
    assert found == pytest.approx([TRUTH[1], TRUTH[2], TRUTH[0]], abs=0.1)


def test_targets_in_plain_numbers_and_without_a_gradient(data: OfflineData) -> None:
    """Each of a slow copy of its own, behind what its own policy does; nothing behind an end.

    Not even into policies that somebody still trains.
    """
    learning = copy.deepcopy(POLICIES).requires_grad_(True)
    trainer = FittedEvaluation([learning], data, CONFIG, discount=DISCOUNT, seed=0)
    with torch.no_grad():
        for part in trainer.q.slow.parameters():
            part.add_(0.1)
    batch = data.rows(torch.arange(12))
    assert 0 < int(batch.terminals.sum()) < 12
    found = trainer.targets(batch)
    assert not found.requires_grad and found.shape == (6, 12)
    for member in range(6):
        for row in range(12):
            ahead = batch.next_observations[row]
            action = POLICIES.distribution(ahead[None]).mean[member // 2, 0]
            slow = trainer.q.slow(torch.cat([ahead, action])[None])[member, 0, 0]
            value = slow * trainer.q.scale + trainer.q.shift
            wanted = batch.rewards[row] + DISCOUNT * (1.0 - batch.terminals[row]) * value
            assert float(found[member, row]) == pytest.approx(float(wanted.detach()), rel=1e-4, abs=1e-5)


def test_at_first_values_fit_the_returns_of_the_data(data: OfflineData) -> None:
    found = trained(data, [POLICIES], monte_carlo_share=0.99)
    starts = data.observations[data.starts], data.actions[data.starts]
    values = found.q.values(*starts).mean(dim=1).detach()
    recorded = float(data.returns[data.starts].mean())
    assert values.tolist() == pytest.approx([recorded] * 6, rel=0.1)


def test_estimates_are_in_the_unit_of_the_environment(data: OfflineData) -> None:
    """Rewards that are scaled by ten for learning say the same."""
    scaled = type(data)(**{**vars(data), "rewards": data.rewards * 10, "returns": data.returns * 10})
    found = trained(scaled, [POLICIES], critics=1).estimate()[:, 0].tolist()
    assert found == pytest.approx(TRUTH, abs=0.1)
