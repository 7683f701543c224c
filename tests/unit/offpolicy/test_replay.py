"""The replay: which rows a minibatch has, what the ring keeps, and that it goes on with the same bits."""

from collections import Counter

import pytest
import torch
from offline_worlds import make_data, point_mass_transitions

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import Mixing, Replay

OLD, NEW = 0.0, 1.0


@pytest.fixture
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=4, length=15))


def fresh(count: int, first: int = 0) -> Batch:
    """Rows whose reward is their number, marked by a terminal."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    columns = numbers[:, None]
    return Batch(columns, columns, numbers, columns, torch.ones(count))


@pytest.mark.parametrize(("mixing", "expected"), [("union", 10), ("balanced", 20), ("online", 40)])
def test_a_batch_has_its_share_of_new_rows(data: OfflineData, mixing: Mixing, expected: int) -> None:
    replay, generator = Replay(data, 100, mixing), torch.Generator().manual_seed(0)
    assert replay.sample(40, generator).terminals.sum() == 0  # there is nothing new yet
    replay.add(fresh(20))  # a quarter of all rows
    batch = replay.sample(40, generator)
    assert (len(batch.rewards), int(batch.terminals.sum())) == (40, expected)
    assert replay.new_share(40) == expected


def test_the_ring_forgets_the_oldest_rows_and_draws_all_others(data: OfflineData) -> None:
    replay, generator = Replay(data, 8, "online"), torch.Generator().manual_seed(0)
    for first in range(0, 20, 5):
        replay.add(fresh(5, first))
    assert replay.fresh == 8
    drawn = Counter(replay.sample(4000, generator).rewards.tolist())
    assert set(drawn) == set(range(12, 20))
    assert max(drawn.values()) < 1.3 * min(drawn.values())


def test_a_row_stays_one_row(data: OfflineData) -> None:
    replay, generator = Replay(data, 8, "balanced"), torch.Generator().manual_seed(0)
    replay.add(fresh(8))
    batch = replay.sample(30, generator)
    for index in range(15, 30):
        number = float(batch.rewards[index])
        assert batch.actions[index].tolist() == [number]
        assert batch.next_observations[index].tolist() == [number]
    for index in range(15):
        row = (data.observations == batch.observations[index]).all(dim=1).nonzero()[0]
        assert torch.equal(data.actions[row][0], batch.actions[index])
        assert data.rewards[row] == batch.rewards[index]


def test_it_goes_on_with_the_same_bits(data: OfflineData) -> None:
    one, other = (Replay(data, 8, "union") for _ in range(2))
    for first in (0, 5, 10):
        one.add(fresh(5, first))
    other.load_state_dict(one.state_dict())
    one.add(fresh(3, 50))
    other.add(fresh(3, 50))
    batches = [replay.sample(32, torch.Generator().manual_seed(4)) for replay in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
