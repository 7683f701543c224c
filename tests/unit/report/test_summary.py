"""What ``summary.json`` keeps: written as told, old files read, others refused in one line."""

from typing import Any

import pytest

from unio4_lib.errors import InputError
from unio4_lib.report.summary import SCHEMA, Data, Gate, Judged, Score, Summary, read_summary

OLD: dict[str, Any] = {"stages": {"report": {"seconds": 3}}, "scores": {}, "dataset": {"mean_return": 5}}


def test_what_was_told_is_written_and_nothing_else() -> None:
    score = Score(mean_return=3.0, sampled=Score(mean_return=2.0, stderr=None))
    summary = Summary(
        schema_version=SCHEMA, dataset=Data(id="d"), stages={}, scores={"online": score}, dip=None
    )
    told = summary.to_json()
    assert told == {
        "schema_version": SCHEMA,
        "dataset": {"id": "d"},
        "stages": {},
        "scores": {"online": {"mean_return": 3.0, "sampled": {"mean_return": 2.0, "stderr": None}}},
        "dip": None,
    }
    assert read_summary(told, "x") == summary


def test_a_summary_of_before_and_one_of_later_are_read() -> None:
    found = read_summary(OLD | {"something_new": [1], "gate": {"checks": 4, "accepted": 1}}, "x")
    assert (found.schema_version, found.seed, found.dataset.mean_return) == (0, None, 5.0)
    assert found.stages["report"].seconds == 3.0
    assert found.gate is not None and found.gate.trusted and found.gate.first is None


def test_the_delivered_policy_began_as_the_start_of_its_track() -> None:
    portfolio = [Judged(name=name, estimates={"mean": 1.0}) for name in "abc"]
    gate = Gate(checks=1, accepted=0, chosen_member=1, started_from=[0, 2], portfolio=portfolio)
    assert gate.first == portfolio[2]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], "x: it: "),
        ({}, "x: dataset: field required"),
        (OLD | {"scores": {"online": {}}}, "x: scores.online.mean_return: field required"),
        (OLD | {"seed": "seven"}, "x: seed: input should be a valid integer"),
        (OLD | {"stages": {"report": 3}}, "x: stages.report: "),
    ],
)
def test_what_is_no_summary_is_one_line(values: Any, line: str) -> None:
    with pytest.raises(InputError) as found:
        read_summary(values, "x")
    text = str(found.value)
    assert text.startswith(line) and text.endswith("expected a summary written by unio4") and "\n" not in text
