"""Records of runs with numbers that tests know, small and whole."""

import re
from html import unescape
from pathlib import Path
from typing import Any

from unio4_lib.methods.configs import load_config
from unio4_lib.methods.pages import write_page
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.reproduce import reproduce_command
from unio4_lib.report import html, verdicts
from unio4_lib.report.facts import LogLine
from unio4_lib.report.record import Course, RunRecord, make_record
from unio4_lib.report.summary import Fitted, Gate, TrustSummary, read_summary

UNIO4 = find_method("unio4")
COMPUTED = ("prepare-dataset", "clone-behavior", "fit-critics", "fit-dynamics", "improve-policy")
HOSTILE = "minari:<script>alert('x')</script>\"&amp;"


def history(metric: str, members: int = 2, steps: int = 5) -> list[dict[str, Any]]:
    """A metric of each member at 100, 200, ...; member m has m + step / 1000."""
    return [
        {"step": step, "values": {f"{metric}/{member}": member + step / 1000 for member in range(members)}}
        for step in range(100, 100 * steps + 1, 100)
    ]


def facts() -> dict[str, dict[str, Any]]:
    """The facts of all stages, as those write them."""
    histogram = {"counts": [1, 4, 2], "edges": [0.0, 10.0, 20.0, 30.0]}
    quantiles = {"0": 0.5, "0.25": 9.0, "0.5": 14.0, "0.75": 21.0, "1": 29.5}
    column = {"min": -1.0, "max": 2.0, "mean": 0.1, "std": 0.5}
    action = {"low": -1.0, "high": 1.0, "share_at_low": 0.1, "share_at_high": 0.02, "counts": [3, 0, 5]}
    return {
        "prepare-dataset": {
            "transitions": 7000,
            "episodes": 70,
            "returns": {"mean": 15.0, "quantiles": quantiles, "histogram": histogram},
            "lengths": {"mean": 15.0, "quantiles": quantiles, "histogram": histogram},
            "ends": {"terminals": 56, "timeouts": 14, "terminal_share_of_episodes": 0.8},
            "actions": [action] * 2,
            "observations": [column] * 3,
        },
        "clone-behavior": {"divergence": [[0.0, 0.2], [0.3, 0.0]], "overlap": [0.9, 0.9]},
        "fit-critics": {
            "bins": [
                {"value": 10.0 * i, "return": 9.0 * i, "stderr": 0.1, "std": 2.0, "rows": 50}
                for i in range(1, 5)
            ],
            "correlation": 0.87,
            "bias": 1.25,
        },
        "fit-dynamics": {
            "calibration": [[0.5, 0.45], [0.9, 0.8]],
            "k_step": {
                "starts": 32,
                "steps": [1, 2],
                "members": [[0.1, 0.2], [0.1, 0.3]],
                "no_change": [0.4, 0.8],
            },
        },
        "report": {
            "ope": {
                "points": [
                    {"label": f"clone {i}", "estimate": 5.0 + i, "truth": 100.0 + i, "stderr": 2.0}
                    for i in range(8)
                ],
                "rank_correlation": 0.93,
            }
        },
    }


def decisions() -> list[dict[str, Any]]:
    """Two looks at two members; the last decision is the one that accepts."""
    return [
        {
            "step": 25 * (1 + number // 2),
            "member": number % 2,
            "candidate": 8.5,
            "current": 8.0,
            "difference": (-1) ** (number + 1) * (0.5 + number),
            "stderr": 0.2,
            "accepted": number == 3,
            "refusal": None if number == 3 else "not sure",
            "acting": {"mean": [8.5, 8.0], "sampled": [8.5, 8.0]},
        }
        for number in range(4)
    ]


def gate() -> dict[str, Any]:
    """What the gate did: track 1, which began as the first clone, is delivered."""
    return {
        "checks": 4,
        "accepted": 1,
        "estimator": "return",
        "confidence": 0.9,
        "margin": 0.02,
        "acts": "mean",
        "chosen_member": 1,
        "started_from": [2, 0],
        "portfolio": [
            {"name": name, "estimates": {"mean": 7.0 + number, "sampled": 6.0 + number}}
            for number, name in enumerate(("uniform", "return:0.5", "advantage:1"))
        ],
        "trust": {"weighting": "uniform", "recorded": 90.0, "modeled": 85.0, "trusted": True},
        "estimates": [{"mean": 8.0, "sampled": 7.5}, {"mean": 9.0, "sampled": 8.5}],
    }


def make_run(
    *,
    seed: int = 0,
    with_facts: bool = True,
    begun: float = 150.0,
    offline: float = 200.0,
    online: float = 300.0,
    curve: list[list[float]] | None = None,
    dataset: str = HOSTILE,
    env_id: str = "Test-v0",
) -> RunRecord:
    """A run with clones at 100, begun by a clone at 150, whose numbers are easy to find again on a page."""
    config = load_config("quick", dataset=dataset, seed=seed).model_dump(mode="json")
    score = {"stderr": 5.0, "episodes": 50, "acts": "mean", "sampled": {"mean_return": 77.0, "stderr": 5.0}}
    summary = {
        "run_id": f"20260102-030405-{seed:08d}",
        "unio4_version": "9.8.7",
        "config_digest": "c0ffee",
        "seed": seed,
        "dataset": {
            "id": dataset,
            "env_id": env_id,
            "transitions": 7000,
            "episodes": 70,
            "mean_return": 90.0,
            "normalized": 9.0,
        },
        "stages": {
            name: {"seconds": 10.0 * number, "peak_memory_bytes": 10**8, "artifact_digest": f"d{number}"}
            for number, name in enumerate(COMPUTED, start=1)
        },
        "scores": {
            "behavior": {**score, "mean_return": 100.0, "normalized": 10.0, "members": [95.0, 105.0]},
            "start": {**score, "mean_return": begun, "normalized": begun / 10},
            "offline": {**score, "mean_return": offline, "normalized": offline / 10},
            "online": {**score, "mean_return": online, "normalized": online / 10},
        },
        "gate": gate(),
    }
    logs = {
        "clone-behavior": history("behavior/holdout_log_likelihood"),
        "fit-critics": [{"step": s, "values": {"critics/loss": 1.0 / s}} for s in range(1000, 9000, 1000)],
        "fit-dynamics": history("dynamics/holdout_squared_error"),
        "improve-policy": history("improve/estimate"),
    }
    points = curve if curve is not None else [[0, offline, 4.0], [30000, 150.0, 4.0], [300000, online, 4.0]]
    found = read_summary(summary, "made")
    course = Course.model_validate({"decisions": decisions(), "curve": points})
    return make_record(found, config, logs=logs, facts=facts() if with_facts else {}, course=course)


def render_report(record: RunRecord) -> str:
    """The page as Uni-O4 shows it."""
    return html.render_report(record, UNIO4.view(), reproduce_command(UNIO4, record.config))


def plain(text: str) -> str:
    """Text as one types it."""
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def page_text(source: str) -> str:
    """What a page says, one element a line."""
    return plain(unescape(re.sub(r"<[^>]*>", "\n", source)))


def write_report(record: RunRecord, path: Path, film: bytes | None = None) -> None:
    write_page(record, path, UNIO4, film)


def checks(record: RunRecord) -> list[verdicts.Check]:
    return verdicts.checks(record, UNIO4.checks)


def gate_of(record: RunRecord) -> Gate:
    assert record.summary.gate is not None
    return record.summary.gate


def trust_of(record: RunRecord) -> TrustSummary:
    trust = gate_of(record).trust
    assert trust is not None
    return trust


def trusted(record: RunRecord, modeled: float, *, word: bool = True) -> None:
    trust_of(record).modeled, trust_of(record).trusted = modeled, word


def fitted(record: RunRecord, correlation: float, *, agrees: bool = True, policies: int = 8) -> None:
    values = [float(number) for number in range(policies)]
    gate_of(record).fqe = Fitted(values=values, rank_correlation=correlation, agrees=agrees)


def scored(record: RunRecord, name: str, mean: float) -> None:
    record.summary.scores[name].mean_return = mean


def refuse(record: RunRecord, reasons: list[str | None]) -> None:
    """The tests that refused the candidates, one for each; None lets it pass."""
    for entry, reason in zip(record.decisions, reasons, strict=True):
        entry.accepted, entry.refusal = reason is None, reason


def found(record: RunRecord, what: str) -> verdicts.Check | None:
    """A check of a record; None where it says nothing."""
    return next((check for check in checks(record) if check.what == what), None)


def logged(record: RunRecord, stage: str, metric: str, value: float) -> None:
    record.stages[stage].log.append(LogLine(step=10**6, values={metric: value}))


def without(record: RunRecord, stage: str) -> None:
    """As if the stage had recorded nothing."""
    record.stages[stage].log.clear()
    record.stages[stage].told.clear()


def early_looks(record: RunRecord, *returns: float) -> None:
    """Looks before the border of the first tenth, after a first one at 200."""
    record.curve[:] = [[0, 200.0, 4.0], *([20_000 + i, value, 4.0] for i, value in enumerate(returns))]
