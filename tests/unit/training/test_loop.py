"""The training loop with a trainer that only counts."""

import math
from typing import Any

import pytest
import torch

from unio4_lib.learning import loop
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import LogEntry, Metrics, TrainingDiverged, run_loop, to_numbers
from unio4_lib.progress import Reporter
from unio4_lib.stages.training import train


class Counter:
    """Takes steps that do nothing but count; is done after ``last`` evaluations."""

    def __init__(self, *, last: int = 1000, broken_at: int = -1, value: float = math.nan) -> None:
        self.steps, self.evaluations, self.last = 0, 0, last
        self.broken_at, self.value = broken_at, value

    def step(self) -> Metrics:
        self.steps += 1
        loss = self.value if self.steps == self.broken_at else float(self.steps)
        return {"a/loss": torch.tensor(loss), "a/each": torch.tensor([1.0, 2.0]) * self.steps}

    def evaluate(self) -> Metrics:
        self.evaluations += 1
        return {"a/holdout": torch.tensor(-float(self.evaluations))}

    def finished(self) -> bool:
        return self.evaluations >= self.last

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def run(trainer: Counter, steps: int, **values: Any) -> list[LogEntry]:
    settings: dict[str, Any] = {"name": "count", "evaluate_every": 10, "log_every": 4}
    return list(run_loop(trainer, steps, **{**settings, **values}))


def test_entries_come_when_logging_or_evaluation_is_due_and_at_the_end() -> None:
    trainer = Counter()
    entries = run(trainer, 23)
    assert [entry.step for entry in entries] == [4, 8, 10, 12, 16, 20, 23]
    assert [entry.step for entry in entries if "a/holdout" in entry.values] == [10, 20, 23]
    assert (trainer.steps, trainer.evaluations) == (23, 3)
    assert entries[0].values == {"a/loss": 4.0, "a/each/0": 4.0, "a/each/1": 8.0}
    assert entries[2].values == {"a/loss": 10.0, "a/each/0": 10.0, "a/each/1": 20.0, "a/holdout": -1.0}
    seconds = [entry.seconds for entry in entries]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_a_loop_goes_on_behind_its_start() -> None:
    trainer = Counter()
    entries = run(trainer, 23, start=11)
    assert [entry.step for entry in entries] == [12, 16, 20, 23]
    assert trainer.steps == 12
    assert run(Counter(), 23, start=23) == []


def test_early_stop_is_asked_after_evaluations_only() -> None:
    trainer = Counter(last=2)
    assert [entry.step for entry in run(trainer, 100)][-1] == 20
    assert trainer.steps == 20
    asked: list[int] = []
    trainer = Counter()
    trainer.finished = lambda: asked.append(trainer.steps) or False  # type: ignore
    run(trainer, 25)
    assert asked == [10, 20, 25]


def test_nothing_happens_before_the_caller_asks() -> None:
    trainer = Counter()
    entries = run_loop(trainer, 100, name="count", evaluate_every=10, log_every=4)
    assert trainer.steps == 0
    next(entries)
    assert trainer.steps == 4


def test_checkpoints_are_offered_when_the_entry_has_been_taken() -> None:
    order: list[str] = []
    entries = run_loop(
        Counter(last=2),
        100,
        name="count",
        evaluate_every=10,
        log_every=100,
        checkpoint=lambda step, _: order.append(f"checkpoint {step}"),
    )
    for entry in entries:
        order.append(f"entry {entry.step}")
    # Every step, since it may be the last one before the process has to end; after what was logged of it.
    plain = [f"checkpoint {step}" for step in range(1, 21)]
    assert order == [*plain[:9], "entry 10", *plain[9:19], "entry 20", plain[19]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_stage_step_and_key(value: float) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        run(Counter(broken_at=8, value=value), 23)
    assert str(caught.value) == (
        f"count: a/loss is {value} at step 8; lower the learning rate or look for outliers in the dataset; "
        "no checkpoint was made yet"
    )


class Kept:
    """Keeps the state of every third step."""

    def __init__(self) -> None:
        self.offers, self.steps = 0, list[int]()

    def due(self) -> bool:
        self.offers += 1
        return self.offers % 3 == 0

    def save(self, state: Any) -> None:
        self.steps.append(state["step"])


def test_no_state_is_kept_whose_loss_is_no_number() -> None:
    """It breaks at step 9, long before the next entry of the log, and step 6 stays the newest checkpoint."""
    kept = Kept()
    with pytest.raises(TrainingDiverged, match=r"nan at step 9;.*last good checkpoint is of step 6$"):
        train(Counter(broken_at=9), 23, 20, "count", Reporter(None), Journal(kept), shown={})
    assert kept.steps == [3, 6]


def test_a_broken_member_and_a_broken_holdout_are_named() -> None:
    trainer = Counter()
    trainer.evaluate = lambda: {"a/holdout": torch.tensor([1.0, math.nan])}  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match=r"^count: a/holdout/1 is nan at step 10; "):
        run(trainer, 23)


def test_numbers_of_scalars_and_of_members() -> None:
    metrics = {
        "x": torch.tensor(1.5, requires_grad=True),
        "members": torch.tensor([1.0, -2.0], dtype=torch.float64),
        "one": torch.tensor([7]),
        "flag": torch.tensor(True),
    }
    expected = {"x": 1.5, "members/0": 1.0, "members/1": -2.0, "one/0": 7.0, "flag": 1.0}
    numbers = to_numbers(metrics)
    assert numbers == expected
    assert list(numbers) == list(expected)
    assert all(type(value) is float for value in numbers.values())
    assert to_numbers({}) == {}


def test_metrics_become_numbers_at_entries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion waits for the device: there is one for each entry, and none in between."""
    calls: list[int] = []
    trainer = Counter()

    def count(metrics: Metrics) -> dict[str, float]:
        calls.append(trainer.steps)
        return to_numbers(metrics)

    monkeypatch.setattr(loop, "to_numbers", count)
    entries = run(trainer, 23)
    assert calls == [entry.step for entry in entries]
