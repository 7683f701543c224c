"""The figures by which runs are compared in MLflow."""

from unio4_lib.report.summary import Data, Gate, Score, Summary
from unio4_lib.stages.tracked import _headline


def score(mean: float, normalized: float | None) -> Score:
    return Score(mean_return=mean, stderr=1.0, normalized=normalized)


def test_the_last_policy_has_the_score_that_a_list_of_runs_sorts_by() -> None:
    scores = {"behavior": score(100.0, 10.0), "offline": score(200.0, 20.0)}
    summary = Summary(dataset=Data(), stages={}, scores=scores, gate=Gate(checks=4, accepted=1))
    assert (_headline(summary)["score"], _headline(summary)["score_normalized"]) == (200.0, 20.0)
    summary.scores["online"] = score(300.0, None)
    assert _headline(summary)["score"] == 300.0
    assert "score_normalized" not in _headline(summary)
