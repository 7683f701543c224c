"""The replay: which rows a minibatch has, what the ring keeps, and that it goes on with the same bits."""

from collections import Counter

import pytest
import torch
from offline_worlds import make_data, point_mass_transitions

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import Fresh, Replay
from unio4_lib.settings.offpolicy import Mixing

OLD, NEW = 0.0, 1.0


@pytest.fixture
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=4, length=15))


def fresh(count: int, first: int = 0) -> Fresh:
    """Rows whose reward is their number, marked by a terminal."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    columns = numbers[:, None]
    return Fresh(columns, columns, numbers, columns, torch.ones(count), torch.zeros(count))


@pytest.mark.parametrize(
    ("mixing", "expected"), [("union", 10), ("balanced", 20), ("online", 40), (0.3, 12), (0.0, 0)]
)
def test_a_batch_has_its_share_of_new_rows(data: OfflineData, mixing: Mixing | float, expected: int) -> None:
    replay, generator = Replay(data, 100, mixing), torch.Generator().manual_seed(0)
    assert replay.sample(40, generator).terminals.sum() == 0  # there is nothing new yet
    replay.add(fresh(20))  # a quarter of all rows
    batch = replay.sample(40, generator)
    assert (len(batch.rewards), int(batch.terminals.sum())) == (40, expected)
    assert replay.new_share() == pytest.approx(expected / 40)


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


def test_parts_of_a_row_are_saved_up(data: OfflineData) -> None:
    """One new row among sixty-one is in every second minibatch of thirty."""
    replay, generator = Replay(data, 100, "union"), torch.Generator().manual_seed(0)
    replay.add(fresh(1))
    drawn = [int(replay.sample(30, generator).terminals.sum()) for _ in range(61)]
    assert (sum(drawn), max(drawn)) == (30, 1)


def test_weights_decide_how_often_a_row_is_drawn(data: OfflineData) -> None:
    replay, generator = Replay(data, 8, "union"), torch.Generator().manual_seed(0)
    replay.add(fresh(4))
    old = torch.zeros(60)
    old[[7, 9]] = torch.tensor([1.0, 2.0])
    replay.weigh(old, torch.tensor([0.0, 2.0, 1.0, 0.0]))
    batch = replay.sample(6000, generator)
    counts = Counter(batch.rewards.tolist())
    wanted = {float(data.rewards[7]): 1000, float(data.rewards[9]): 2000, 1.0: 2000, 2.0: 1000}
    assert counts.keys() == wanted.keys()
    assert all(abs(counts[key] - count) < 200 for key, count in wanted.items())
    replay.add(fresh(2, 20))  # they count like a row of the data does on average
    assert replay.new_share() == pytest.approx((3.0 + 2 * 3.0 / 60) / (6.0 + 2 * 3.0 / 60))


def test_old_rows_know_their_return_and_what_was_done_next(data: OfflineData) -> None:
    index = torch.tensor([0, 14, 59])  # rows 14 and 59 are the last of their episodes
    batch = data.rows(index)
    assert batch.followed.tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(batch.next_actions[0], data.actions[1])
    assert torch.equal(batch.returns, data.returns[index])


def test_new_rows_know_what_their_environment_did_next(data: OfflineData) -> None:
    """Three environments, a ring of four steps and a half; an episode of the second ends at step 3."""
    replay = Replay(data, 14, "online")
    for step in range(6):
        rows = fresh(3, 10 * step)
        replay.add(rows._replace(ended=torch.tensor([0.0, float(step == 3), 0.0])))
    batch = replay.fresh_rows(torch.arange(14))
    for number, action, known in zip(
        batch.rewards.tolist(), batch.next_actions[:, 0].tolist(), batch.followed.tolist(), strict=True
    ):
        newest, ended = number >= 50, number == 31
        assert known == (0.0 if newest or ended else 1.0), number
        if known:
            assert action == number + 10
    assert torch.equal(batch.returns, torch.full((14,), -torch.inf))


@pytest.mark.parametrize("weighted", [False, True])
def test_it_goes_on_with_the_same_bits(data: OfflineData, weighted: bool) -> None:
    one, other = (Replay(data, 8, "union") for _ in range(2))
    for first in (0, 5, 10):
        one.add(fresh(5, first))
    if weighted:
        one.weigh(torch.arange(60.0), torch.arange(8.0))
    one.sample(30, torch.Generator().manual_seed(0))  # a part of a row is owed now
    other.load_state_dict(one.state_dict())
    assert one.owed == other.owed > 0
    one.add(fresh(3, 50))
    other.add(fresh(3, 50))
    batches = [replay.sample(32, torch.Generator().manual_seed(4)) for replay in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def made(count: int) -> Batch:
    """Rows of a model, whose reward is minus their number."""
    numbers = -torch.arange(1.0, count + 1)
    columns = numbers[:, None]
    return Batch(columns, columns, numbers, columns, numbers, numbers, columns, numbers, numbers)


def test_made_rows_are_a_share_and_leave_the_others_as_they_are(data: OfflineData) -> None:
    """A third each of old, new and made ones; parts of a row are saved up."""
    replay, generator = Replay(data, 100, "balanced"), torch.Generator().manual_seed(0)
    replay.add(fresh(20))
    replay.put_made(made(5), 1 / 3)
    counts = Counter[str]()
    for _ in range(30):
        batch = replay.sample(32, generator)
        assert len(batch.rewards) == 32
        ends = batch.terminals.tolist()
        counts.update("old" if end == OLD else "new" if end == NEW else "made" for end in ends)
        assert all(part[-1].item() == batch.rewards[-1].item() for part in batch)
    assert all(abs(counts[name] - 320) <= 1 for name in ("old", "new", "made"))
    replay.put_made(made(2), 1 / 3)
    rewards = torch.cat([replay.sample(32, generator).rewards[-10:] for _ in range(5)])
    assert set(rewards.tolist()) == {-1.0, -2.0}


def test_no_made_rows_are_no_difference(data: OfflineData) -> None:
    one, other = (Replay(data, 100, "balanced") for _ in range(2))
    for replay in (one, other):
        replay.add(fresh(20))
    other.put_made(made(5), 0.0)
    first = one.sample(32, torch.Generator().manual_seed(0))
    batches = (first, other.sample(32, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_made_rows_are_kept(data: OfflineData) -> None:
    one, other = (Replay(data, 8, "union") for _ in range(2))
    one.add(fresh(5))
    one.put_made(made(5), 0.3)
    one.sample(32, torch.Generator().manual_seed(0))
    other.load_state_dict(one.state_dict())
    assert one.made_owed == other.made_owed > 0
    batches = [replay.sample(32, torch.Generator().manual_seed(4)) for replay in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_whole_minibatches_are_of_the_newest_rows_once_half_of_them_are_there(data: OfflineData) -> None:
    replay, generator = Replay(data, 30, "union"), torch.Generator().manual_seed(0)
    replay.prefer_recent(0.25, 12)
    replay.add(fresh(5))
    assert not any(replay.sample(8, generator).recent.any() for _ in range(100))
    for first in range(5, 40, 5):
        replay.add(fresh(5, first))
    drawn, whole, kinds = Counter[float](), 0, set()
    for _ in range(800):
        batch = replay.sample(20, generator)
        if bool(batch.recent.any()):
            assert bool(batch.recent.all() and batch.terminals.all())
            drawn.update(batch.rewards.tolist())
            whole += 1
        else:
            kinds.update(batch.terminals.tolist())
    assert 150 < whole < 250
    assert set(drawn) == set(range(28, 40))
    assert max(drawn.values()) < 1.5 * min(drawn.values())
    assert kinds == {OLD, NEW}


def test_no_chance_of_newest_rows_is_no_difference(data: OfflineData) -> None:
    replay = Replay(data, 100, "balanced")
    replay.prefer_recent(0.0, 4)
    replay.add(fresh(20))
    batches = [draw(32, torch.Generator().manual_seed(0)) for draw in (replay._seen, replay.sample)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_made_rows_go_with_their_like(data: OfflineData) -> None:
    """Where there are none of a kind, any will do."""
    generator, rows = torch.Generator().manual_seed(0), made(6)
    for flags in ([0.0] * 2 + [1.0] * 4, [1.0] * 6):
        replay = Replay(data, 100, "union")
        replay.add(fresh(20))
        replay.prefer_recent(0.5, 20)
        replay.put_made(rows._replace(recent=torch.tensor(flags)), 0.25)
        seen: dict[bool, set[float]] = {True: set(), False: set()}
        for _ in range(60):
            batch = replay.sample(16, generator)
            seen[bool(batch.recent[0])].update(batch.rewards[12:].tolist())
        alike, others = {-1.0, -2.0}, {-3.0, -4.0, -5.0, -6.0}
        assert seen == ({True: others, False: alike} if 0.0 in flags else dict.fromkeys(seen, alike | others))


def test_the_newest_rows_are_remembered(data: OfflineData) -> None:
    one, other = (Replay(data, 8, "union") for _ in range(2))
    one.prefer_recent(0.5, 4)
    one.add(fresh(5))
    other.load_state_dict(one.state_dict())
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    for _ in range(6):
        batches = [replay.sample(8, draws) for replay, draws in zip((one, other), generators, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
