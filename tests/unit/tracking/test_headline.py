"""The figures by which runs are compared in MLflow."""

from typing import Any

from unio4_lib.stages.tracked import _headline


def score(mean: float, normalized: float | None) -> dict[str, Any]:
    return {"mean_return": mean, "stderr": 1.0, "normalized": normalized}


def test_the_last_policy_has_the_score_that_a_list_of_runs_sorts_by() -> None:
    summary: dict[str, Any] = {"dip": None, "gate": {"checks": 4, "accepted": 1}, "stages": {}}
    summary["scores"] = {"behavior": score(100.0, 10.0), "offline": score(200.0, 20.0)}
    assert (_headline(summary)["score"], _headline(summary)["score_normalized"]) == (200.0, 20.0)
    summary["scores"]["online"] = score(300.0, None)
    assert _headline(summary)["score"] == 300.0
    assert "score_normalized" not in _headline(summary)
