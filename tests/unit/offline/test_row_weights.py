"""Weights of rows against plain numpy, and draws in proportion to them."""

from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import FunctionCritics, following, make_data, make_transitions, same_bits
from scipy import stats
from torch import Tensor

from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import FEWEST_EPISODES, RowSampler, data_advantages, row_weights


def episodes_of(returns: list[float], lengths: list[int]) -> OfflineData:
    """Episodes with these returns; the reward comes with the last row alone."""
    rewards = np.zeros(sum(lengths))
    ends = np.cumsum(lengths) - 1
    rewards[ends] = returns
    timeouts = np.isin(np.arange(len(rewards)), ends)
    states = np.linspace(-1.0, 1.0, len(rewards))[:, None]
    return make_data(
        make_transitions(states, states, rewards, following(states), np.zeros_like(timeouts), timeouts)
    )


LENGTHS = [3, 7, 2, 5, 4, 6, 3, 8, 2, 5, 4, 9]
RETURNS = [1.0, 5.0, -2.0, 0.5, 4.0, 4.5, 3.0, 2.0, 0.0, 1.5, 4.8, 2.5]
DATA = episodes_of(RETURNS, LENGTHS)
ADVANTAGES = torch.randn(len(DATA), generator=torch.Generator().manual_seed(0)) * 7 + 2


def by_numpy(weighting: str) -> np.ndarray:
    """The formulas as they are written."""
    returns, advantages = np.array(RETURNS), ADVANTAGES.double().numpy()
    of_row = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    weights = np.ones(len(of_row))
    for factor in weighting.split("*") if weighting != "uniform" else []:
        kind, number = factor.split(":")
        if kind == "return":
            weights *= np.exp((returns - returns.max()) / (float(number) * returns.std()))[of_row]
        else:
            weights *= np.minimum(np.exp(float(number) * advantages / advantages.std()), np.exp(4.6))
    return weights / weights.mean()


@pytest.mark.parametrize(
    "weighting",
    ["uniform", "return:1", "return:0.7", "advantage:1", "advantage:3", "advantage:0.5*return:1",
     "return:2*advantage:3"],
)  # fmt: skip
def test_weights_are_what_the_formulas_say(weighting: str) -> None:
    found = row_weights(DATA, weighting, ADVANTAGES)
    np.testing.assert_allclose(found.numpy(), by_numpy(weighting), rtol=1e-6)
    assert float(found.mean()) == pytest.approx(1.0)


def test_the_cap_of_an_advantage_is_a_hundred_times_that_of_none() -> None:
    advantages = torch.zeros(len(DATA))
    advantages[0], advantages[1] = 50.0, 30.0
    weights = row_weights(DATA, "advantage:3", advantages)
    assert float(weights[0] / weights[2]) == pytest.approx(np.exp(4.6))
    assert float(weights[1]) == float(weights[0])


@pytest.mark.parametrize("value", [0.0, -3.5, 1e6])
def test_where_all_episodes_are_alike_weights_are_uniform(value: float) -> None:
    data = episodes_of([value] * 6, [4] * 6)
    assert torch.equal(row_weights(data, "return:0.5"), torch.ones(24).double())
    assert torch.equal(row_weights(data, "advantage:3", torch.full((24,), value)), torch.ones(24).double())


def effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


@pytest.mark.parametrize("successes", [1, 3, 30])
@pytest.mark.parametrize("temperature", ["0.2", "0.5", "1"])
def test_of_sparse_successes_enough_episodes_are_left(successes: int, temperature: str) -> None:
    """0 and 1: successes count more, and never fewer than five episodes make a policy."""
    returns = [1.0] * successes + [0.0] * (300 - successes)
    weights = row_weights(episodes_of(returns, [2] * 300), f"return:{temperature}")
    of_episode = weights.numpy()[::2]
    assert np.isfinite(of_episode).all()
    assert effective(of_episode) >= FEWEST_EPISODES * (1 - 1e-9)
    assert of_episode[0] > 1.5 * of_episode[-1]
    # And T is not raised further than needed.
    spread = np.std(returns) * float(temperature)
    asked = np.exp((np.array(returns) - 1.0) / spread)
    assert effective(of_episode) < max(2 * FEWEST_EPISODES, effective(asked) * (1 + 1e-9))


def test_a_few_episodes_keep_half_of_their_number() -> None:
    weights = row_weights(episodes_of([0.0, 1.0, 2.0, 30.0], [2] * 4), "return:0.1").numpy()[::2]
    assert 2.0 * (1 - 1e-9) <= effective(weights) < 2.6


def test_weights_belong_to_the_episode_and_not_to_the_row() -> None:
    weights = row_weights(DATA, "return:1").numpy()
    parts = np.split(weights, np.cumsum(LENGTHS)[:-1])
    assert all(len(np.unique(part)) == 1 for part in parts)
    assert int(np.argmax([part[0] for part in parts])) == RETURNS.index(max(RETURNS))


def test_advantages_of_the_data_are_its_own_actions_slow_q_minus_v(monkeypatch: pytest.MonkeyPatch) -> None:
    from unio4_lib.learning import row_weights as module

    monkeypatch.setattr(module, "CHUNK", 7)  # several chunks
    critics: Any = FunctionCritics(lambda s, a: torch.full(s.shape[:-1], torch.nan), lambda s: s[..., 0] ** 2)
    critics.target_min_q = lambda s, a: 3 * a[..., 0] + s[..., 0]
    found = data_advantages(critics, DATA)
    x, a = DATA.observations[:, 0], DATA.actions[:, 0]
    torch.testing.assert_close(found, 3 * a + x - x**2)


def drawn(sampler: RowSampler, count: int, seed: int = 0) -> Tensor:
    return sampler.draw(count, torch.Generator().manual_seed(seed))


def test_each_member_draws_rows_in_proportion_to_its_own_weights() -> None:
    """Chi-square over a subset of the rows: a bound that fair draws pass 999 times of 1000."""
    rows = torch.arange(3, len(DATA), 2)
    weights = [row_weights(DATA, name, ADVANTAGES) for name in ("uniform", "return:1", "advantage:1")]
    found = drawn(RowSampler(rows, weights), 20_000)
    assert found.shape == (3, 20_000)
    assert torch.isin(found, rows).all()
    for member, weight in enumerate(weights):
        counts = torch.bincount(found[member], minlength=len(DATA))[rows].double().numpy()
        mass = weight[rows].numpy()
        expected = 20_000 * mass / mass.sum()
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < stats.chi2.ppf(0.999, len(rows) - 1), member


def test_members_of_equal_weights_draw_different_rows() -> None:
    first, second = drawn(RowSampler(torch.arange(len(DATA)), [torch.ones(len(DATA))] * 2), 200)
    assert not torch.equal(first, second)


def test_rows_of_no_weight_are_never_drawn() -> None:
    weights = torch.ones(len(DATA))
    weights[:10], weights[20] = 0.0, 0.0
    found = drawn(RowSampler(torch.arange(len(DATA)), [weights]), 20_000)
    assert found.min() == 10
    assert not (found == 20).any()
    assert set(found.flatten().tolist()) == set(range(10, len(DATA))) - {20}


def test_draws_go_on_where_the_generator_was_left() -> None:
    sampler = RowSampler(torch.arange(len(DATA)), [torch.ones(len(DATA)), row_weights(DATA, "return:1")])
    generator = torch.Generator().manual_seed(3)
    sampler.draw(50, generator)
    state = generator.get_state()
    whole = sampler.draw(50, generator)
    resumed = torch.Generator()
    resumed.set_state(state)
    assert same_bits(sampler.draw(50, resumed), whole)
    assert not same_bits(drawn(sampler, 50, seed=4), whole)
