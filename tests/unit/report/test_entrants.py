"""What the report says of who took part in a tournament."""

from dataclasses import replace

from made_records import make_run

from unio4_lib.methods.tournament.section import entrants_section
from unio4_lib.report.record import StageRecord
from unio4_lib.report.summary import Fitted, Judged


def test_the_report_places_entrants_among_all_policies() -> None:
    """Clones of one kind have one name: places go by numbers, and by the mean over ways of acting."""
    record = make_run()
    names = ("uniform", "return:1", "uniform", "iql", "td3_bc")
    values = ((5.0, 1.0), (2.0, 2.0), (1.0, 1.0), (4.0, 3.0), (0.0, 0.0))
    assert record.summary.gate is not None
    record.summary.gate.portfolio = [
        Judged(name=name, estimates=dict(zip(("mean", "sampled"), value, strict=True)))
        for name, value in zip(names, values, strict=True)
    ]
    record.summary.gate.started_from = [3, 0]
    told = [{"label": name, "artifact_digest": "d" * 64} for name in names[-2:]]
    log = StageRecord([], {"entrants": told}, 1.0, False, False, 0, "")
    text = str(entrants_section(replace(record, stages={"train-entrants": log})))
    for cell in ("a policy of kind iql first", "3.5", "1 of 5", "track 0", "5 of 5"):
        assert cell in text
    assert "Fitted Q" not in text
    record.summary.gate.fqe = Fitted(
        values=[7.5, 1.5, 2.5, 6.25, 3.5], spreads=[0.5] * 5, rank_correlation=0.625, first=0, agrees=False
    )
    text = str(entrants_section(replace(record, stages={"train-entrants": log})))
    for cell in (
        "Fitted Q, discounted",
        "6.2",
        "3.5",
        "one of kind uniform first",
        "0.62",
        "is worse than a plain",
    ):
        assert cell in text
