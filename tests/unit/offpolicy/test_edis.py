"""EDIS: known pushes and learned ones, what energies are taught, and IQL without made rows."""

import copy
import math
from typing import Any

import pytest
import torch
from bandits import made, same, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass
from test_cfdg import TINY, TUNE, measure
from torch import Tensor, nn

from unio4_lib.learning.diffusion import Denoise, heun
from unio4_lib.learning.energies import Energies, held, pushed
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.methods import edis, iql

SMALL = TINY | {"energy_updates": 3, "energy_rows": 8, "energy_hidden": (8,)}
ONLINE = TUNE.model_copy(update={"mixing": "online"})


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def edis_of(data: OfflineData, **own: Any) -> Any:
    return made(edis.ROOM, data, **SMALL | own)


def online(data: OfflineData, learner: Any, seed: int = 3) -> OnlineTraining:
    return OnlineTraining(learner, data, ONLINE, PointMass, batch_size=24, seed=seed)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard(rows: Tensor, level: float) -> Tensor:
    """The best guess where clean rows are standard normal."""
    return rows / (1 + level**2)


class Shift(nn.Module):
    """The energies that lead N(0, 1) to N(1, 1) in every column."""

    def forward(self, vectors: Tensor, sigma: Tensor) -> Tensor:
        return -((vectors - 0.5) / (1 + sigma.square())[:, None]).sum(dim=1).expand(2, -1)


def drawn(denoise: Denoise) -> Tensor:
    noise = torch.randn(20_000, 2, generator=generator(), dtype=torch.float64)
    return heun(denoise, noise, 32, churn=0.0, draws=generator(1))


def test_the_exact_energy_leads_where_it_should_and_only_in_its_columns() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, -1.0]])
    plain = drawn(standard)
    for weights, means in ((first, (1.0, 0.0)), (second, (0.0, -1.0)), (first + second, (1.0, -1.0))):
        found = drawn(pushed(standard, Shift(), weights, released=False))
        assert found.mean(dim=0).tolist() == pytest.approx(means, abs=0.03)
        assert found.std(dim=0).tolist() == pytest.approx(plain.std(dim=0).tolist(), abs=0.02)


def test_a_push_has_two_powers_of_the_noise_and_the_released_one_has_one_and_a_bound() -> None:
    rows, weights = torch.randn(5, 2, generator=generator()), torch.tensor([[3.0, 0.0], [0.0, 500.0]])
    found = standard(rows, 2.0) - pushed(standard, Shift(), weights, released=True)(rows, 2.0)
    push = torch.tensor([-3.0 / 5, -500.0 / 5])
    bound = 10.0 * math.sqrt(2)
    torch.testing.assert_close(found, (2.0 * push * bound / push.norm()).expand(5, -1))
    mild = standard(rows, 2.0) - pushed(standard, Shift(), weights / 100, released=True)(rows, 2.0)
    torch.testing.assert_close(mild, (2.0 * push / 100).expand(5, -1))
    proper = standard(rows, 2.0) - pushed(standard, Shift(), weights, released=False)(rows, 2.0)
    torch.testing.assert_close(proper, (4.0 * push).expand(5, -1))


def test_held_columns_come_out_as_they_are_known() -> None:
    clean = torch.randn(20_000, 2, generator=generator(5), dtype=torch.float64)
    found = drawn(held(standard, clean, torch.tensor([False, True])))
    torch.testing.assert_close(found[:, 1], clean[:, 1], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, 0], drawn(standard)[:, 0])


def test_energies_are_taught_which_one_is_wanted_row_by_row() -> None:
    energies = Energies(3, 2, (8,), generator=generator())
    wanted, others = (
        torch.randn(3, 4, 2, generator=generator(1)),
        torch.randn(3, 4, 5, 2, generator=generator(2)),
    )
    losses = energies.losses(wanted, others, generator(3)).detach()
    draws = generator(3)
    sigma = (-1.2 + 1.2 * torch.randn(4, generator=draws)).exp()
    noise = torch.randn(3, 4, 6, 2, generator=draws)
    for row in range(4):
        total = 0.0
        for kind in range(3):
            choices = [wanted[kind, row], *others[kind, row]]
            found = []
            for place, one in enumerate(choices):
                seen = one + sigma[row] * noise[kind, row, place]
                found.append(float(energies(seen[None], sigma[row : row + 1])[kind, 0].detach()))
            total += found[0] + math.log(sum(math.exp(-energy) for energy in found))
        assert float(losses[row]) == pytest.approx(total, rel=1e-4)


def test_a_learned_energy_has_the_slope_of_the_log_ratio() -> None:
    """Of N(1, 1) over N(0, 1), noised."""
    draws, energies = generator(), Energies(1, 1, (32,), generator=generator())
    updates = Updates({"energies": Group([energies], 3e-3)})
    for _ in range(300):
        wanted, others = (
            torch.randn(1, 256, 1, generator=draws) + 1,
            torch.randn(1, 256, 4, 1, generator=draws),
        )
        updates.step({"energies": energies.losses(wanted, others, draws)})
    for level in (0.3, 1.0):
        ends = energies(torch.tensor([[0.0], [1.0]]), torch.full((2,), level))[0].detach()
        assert float(ends[1] - ends[0]) == pytest.approx(-1 / (1 + level**2), rel=0.25)


def test_without_made_rows_it_is_iql_bit_for_bit(data: OfflineData) -> None:
    learners = [edis_of(data, made_share=0.0), made(iql.ROOM, data)]
    for learner in learners:
        learner.update(data.rows(torch.arange(16)))
        list(online(data, learner).run(measure))
    one, two = (states(learner.critics, learner.policy) for learner in (learners[0].base, learners[1]))
    assert same(one, two)


def test_energies_learn_from_new_rows_with_the_policys_actions(data: OfflineData) -> None:
    """And from others that share the state, or state and action, with the same row."""
    learner = edis_of(data)
    training = online(data, learner)
    training._round(80)
    wanted, others = learner.wanted_and_others(training.replay)
    new = learner.vectors.pack(training.replay.fresh_rows(torch.arange(80)))
    known = {tuple(row) for row in new.tolist()}
    assert all(tuple(row) in known for kind in (0, 2) for row in wanted[kind].tolist())
    assert torch.equal(wanted[1][:, [0, 2, 3, 4]], wanted[0][:, [0, 2, 3, 4]])
    assert not torch.equal(wanted[1][:, 1], wanted[0][:, 1])
    shared = [(others[kind] - wanted[kind][:, None]).abs().amax(dim=(0, 1)) < 1e-3 for kind in range(3)]
    assert [kind.tolist() for kind in shared] == [
        [False, False, False, False, False],
        [True, False, False, False, False],
        [True, True, False, False, False],
    ]
    padded = edis_of(data, released=True).wanted_and_others(training.replay)[1]
    assert not padded[1][..., 1:].any() and not padded[2][..., 2:].any() and bool(padded[0].any())


def test_pushes_are_on_the_columns_of_their_part(data: OfflineData) -> None:
    learner = edis_of(data, state_push=2.0, action_push=3.0, successor_push=4.0)
    assert learner.pushes.tolist() == [[2, 0, 0, 0, 0], [0, 3, 0, 0, 0], [0, 0, 0, 4, 0]]


def test_minibatches_are_new_and_made_rows(data: OfflineData) -> None:
    learner = edis_of(data, made_share=0.25)
    training, plain = online(data, learner), learner.update
    counts = {"new": 0, "made": 0}

    def update(batch: Batch) -> Any:
        seen = set(training.replay.ring.rewards.tolist())
        new = sum(reward in seen for reward in batch.rewards.tolist())
        counts["new"] += new
        counts["made"] += len(batch.rewards) - new
        assert bool(batch.returns.isneginf().all())
        return plain(batch)

    learner.update = update
    list(training.run(measure))
    assert counts == {"new": 18 * 160, "made": 6 * 160}


def test_it_goes_on_within_a_refresh(data: OfflineData) -> None:
    """After its energies were trained, with some of the rows made."""
    whole, kept = online(data, edis_of(data)), []
    list(whole.run(measure, lambda _, said: kept.append((said, copy.deepcopy(whole.state_dict())))))
    state = next(state for said, state in kept if "learner/made_rows" in said)
    assert 0 < len(state["learner"]["pending"]) < 100
    rest = online(data, edis_of(data), seed=77)
    rest.load_state_dict(state)
    list(rest.run(measure))
    nets = [(one.learner.base.critics, one.learner.policy, one.learner.energies) for one in (whole, rest)]
    assert same(states(*nets[0]), states(*nets[1]))
