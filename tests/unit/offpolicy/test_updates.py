"""How learners move: as torch's Adam would move them, each group by its own loss alone."""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from offline_worlds import make_data, point_mass_transitions
from torch import Tensor, nn

from unio4_lib.learning.offline_data import Batch
from unio4_lib.learning.offpolicy import BatchUpdates, OfflineTraining
from unio4_lib.learning.updates import Group, Schedule, Updates, half_cosine, limit_norm, straight
from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig

RATE = 1e-2


def net(seed: int = 0) -> nn.Linear:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        for part in layer.parameters():
            part.normal_(generator=torch.Generator().manual_seed(seed))
    return layer


def number(value: float) -> Tensor:
    """As the clock of a group says it."""
    return torch.tensor(value, dtype=torch.float64)


def rows(count: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def errors(layer: nn.Module, seed: int = 1) -> Tensor:
    """Losses [B] of a linear regression."""
    inputs = rows(seed=seed)
    found: Tensor = (layer(inputs)[:, 0] - inputs.sum(dim=1)).square()
    return found


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def ensemble() -> EnsembleMLP:
    """Two networks whose first layer takes all rows at once, so that its gradient lies across memory."""
    return EnsembleMLP(2, 3, 1, (8, 8), layer_norm=True, generator=torch.Generator().manual_seed(0))


class Flat(nn.Module):
    """An ensemble as one network [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ensemble()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).sum(dim=0)


@pytest.mark.parametrize("make", [net, Flat])
@pytest.mark.parametrize("share", [None, half_cosine(30), straight(15, 0.1)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_group_moves_as_by_torch_adam(
    share: Schedule | None, make: Callable[[], nn.Module], decay: float
) -> None:
    ours, theirs = make(), make()
    updates = Updates({"fit": Group([ours], RATE, share, decay=decay)})
    adam = torch.optim.AdamW(theirs.parameters(), RATE, weight_decay=decay, fused=True)
    for step in range(20):
        metrics = updates.step({"fit": errors(ours, step)})
        if share is not None:
            adam.param_groups[0]["lr"] = float((RATE * share(number(step))).float())
        loss = errors(theirs, step).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert torch.equal(metrics["learner/fit_loss"], loss.detach())
        assert same(ours, theirs), step


@pytest.mark.parametrize("most", [0.1, 1e6])
def test_norms_are_limited_and_steps_are_those_of_torch_to_the_bit(most: float) -> None:
    """With an epsilon of one's own and a rate that is set anew, as PPO does it; 1e6 limits nothing."""
    ours, theirs = net(), net()
    group = Group([ours], 1.0, epsilon=1e-5)
    adam = torch.optim.Adam(theirs.parameters(), eps=1e-5, fused=True)
    for step in range(5):
        group.learning_rate = adam.param_groups[0]["lr"] = RATE / (step + 1)
        gradients = group.gradients(errors(ours, step).sum())
        limit_norm(gradients, most)
        group.move(gradients)
        adam.zero_grad()
        errors(theirs, step).sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), most)
        adam.step()
    assert same(ours, theirs)


def test_a_loss_moves_its_group_alone() -> None:
    """The second loss goes through the first network, as a policy's goes through Q."""
    first, second = net(0), nn.Linear(3, 3)
    other, single = copy.deepcopy(first), nn.Parameter(torch.ones(()))
    updates = Updates({"first": Group([first], RATE), "second": Group([second, single], RATE)})
    before = copy.deepcopy(second)
    updates.step({"second": first(second(rows()))[:, 0] * single})
    assert same(first, other)
    assert not same(second, before)
    assert float(single.detach()) != 1.0
    assert all(part.grad is None for part in (*first.parameters(), *second.parameters()))
    assert (updates.groups["first"].taken, updates.groups["second"].taken) == (0, 1)


def test_all_gradients_of_a_step_are_of_the_networks_as_they_were() -> None:
    first, second = net(0), nn.Linear(3, 3)
    both = copy.deepcopy(first), copy.deepcopy(second)

    def losses(one: nn.Module, two: nn.Module) -> dict[str, Tensor]:
        return {"first": errors(one), "second": one(two(rows()))[:, 0]}

    apart = Updates({"first": Group([first], RATE), "second": Group([second], RATE)})
    found = losses(first, second)
    apart.step({"second": found["second"]})
    apart.step({"first": found["first"]})
    together = Updates({"first": Group([both[0]], RATE), "second": Group([both[1]], RATE)})
    together.step(losses(*both))
    assert same(first, both[0])
    assert same(second, both[1])


def test_rows_may_weigh() -> None:
    """A row of weight zero is not there, one of weight two is there twice."""
    weighted, plain = net(), net()
    left, right = (Updates({"fit": Group([one], RATE)}) for one in (weighted, plain))
    for step in range(5):  # the first step of Adam has the same length whatever the gradient
        left.step({"fit": errors(weighted, step)[:4]}, {"fit": torch.tensor([0.0, 2.0, 1.0, 1.0])})
        right.step({"fit": errors(plain, step)[[1, 1, 2, 3]]})
    for one, other in zip(weighted.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_slow_copies_come_nearer_by_the_rate() -> None:
    leader, slow = net(0), net(5)
    expected = [0.9 * a + 0.1 * b for a, b in zip(slow.parameters(), leader.parameters(), strict=True)]
    Updates({}, [(slow, leader)], 0.1).follow()
    for part, wanted in zip(slow.parameters(), expected, strict=True):
        torch.testing.assert_close(part, wanted)


def test_it_goes_on_with_the_same_bits() -> None:
    one, other = net(), net(3)
    first = Updates({"fit": Group([one], RATE, half_cosine(10))})
    for step in range(3):
        first.step({"fit": errors(one, step)})
    second = Updates({"fit": Group([other], RATE, half_cosine(10))})
    kept = copy.deepcopy(one.state_dict())
    state = first.state_dict()
    first.step({"fit": errors(one, 9)})  # the state is no view of what goes on
    other.load_state_dict(kept)
    second.load_state_dict(state)
    second.step({"fit": errors(other, 9)})
    assert same(one, other)


def test_a_half_cosine_falls_to_zero_and_is_one_again() -> None:
    share = half_cosine(4)
    found = [float(share(number(taken))) for taken in (0, 2, 3, 4, 9)]
    assert found == pytest.approx([1.0, 0.5, 0.1464, 1.0, 1.0], abs=1e-4)


def test_a_straight_fall_ends_at_its_last_value() -> None:
    share = straight(10, 0.2)
    found = [float(share(number(taken))) for taken in (0, 5, 10, 30)]
    assert found == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_steps_are_counted_in_python_and_on_the_device_alike() -> None:
    layer = net()
    group = Group([layer], RATE)
    updates = Updates({"fit": group})
    for _ in range(3):
        updates.step({"fit": errors(layer)})
    assert (group.taken, float(group.clock)) == (3, 3.0)
    group.taken = 7
    assert float(group.clock) == 7.0
    updates.forget()
    assert (group.taken, float(group.clock)) == (0, 0.0)


class Watching:
    """A learner that says what a tiny number comes to."""

    def update(self, _: Batch) -> dict[str, torch.Tensor]:
        return {"tiny": torch.tensor(1e-38) * 0.1}

    def phase(self) -> str:
        return "watching"

    def draws_from(self) -> list[torch.Generator]:
        return [torch.Generator()]


def test_learners_count_tiny_numbers_as_zero_offline_and_online() -> None:
    data, learner = make_data(point_mass_transitions(episodes=2)), Watching()
    offline = OfflineTraining(learner, data, OffPolicyTrainConfig(), seed=0)  # type: ignore[arg-type]
    online = BatchUpdates(learner)  # type: ignore[arg-type]
    assert offline.step()["tiny"] == 0.0
    assert online.update(data.rows(torch.arange(4)))["tiny"] == 0.0
    assert learner.update(data.rows(torch.arange(4)))["tiny"] > 0.0


PROBE = """
import resource, torch
from unio4_lib.learning.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(30):
        blocks = [torch.ones(2**18) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
kept = keep_freed_memory() and keep_freed_memory()
faults()
print(kept, before, faults())
"""


def test_freed_memory_is_used_again() -> None:
    """Of eight megabytes that are freed and taken thirty times, no page comes from the system twice."""
    ended = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    kept, before, after = ended.stdout.split()
    if kept == "False" or int(before) < 1000:
        pytest.skip("another C library, or a system that does not count pages")
    assert int(after) < int(before) / 20


GIVEN_BACK = """
import torch
from pathlib import Path
from unio4_lib.learning.memory import give_back_freed_memory, keep_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20
keep_freed_memory()
blocks = [torch.ones(2**16) for _ in range(400)]  # a hundred megabytes
last = torch.ones(2**16)  # what is free lies below it
before = resident()
del blocks
kept = resident()
print(give_back_freed_memory(), before - kept, kept - resident())
"""


def test_freed_memory_is_given_back_when_nothing_will_use_it() -> None:
    ended = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    worked, at_once, given = ended.stdout.split()
    if worked == "False":
        pytest.skip("another C library")
    assert int(at_once) < 10 and int(given) > 80


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_a_group_moves_on_a_gpu() -> None:
    ours, theirs = net().cuda(), net()
    updates, adam = Updates({"fit": Group([ours], RATE)}), torch.optim.Adam(theirs.parameters(), RATE)
    for step in range(5):
        inputs = rows(seed=step)
        updates.step({"fit": (ours(inputs.cuda())[:, 0] - inputs.sum(dim=1).cuda()).square()})
        adam.zero_grad()
        errors(theirs, step).mean().backward()
        adam.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other)
