"""Who took part in a tournament, and what became of them."""

from unio4_lib import words
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import quiet, section, table
from unio4_lib.report.record import RunRecord


def entrants_section(record: RunRecord) -> Markup:
    """Each entrant with what the judge thought of it, and whether it went on."""
    found = record.stage("train-entrants").facts.get("entrants") or []
    gate = record.summary.gate
    if not found or gate is None or gate.first is None:
        return section("entrants", "Entrants", quiet("This run kept nothing of its entrants."))
    judged = {member.name: number for number, member in enumerate(gate.portfolio)}
    estimates = [max(member.estimates.values()) for member in gate.portfolio]  # by the better way of acting
    best = sorted(judged.values(), key=lambda number: -estimates[number])
    begun = gate.started_from
    rows = []
    for entrant in found:
        number = judged[entrant["label"]]
        track = f"track {begun.index(number)}" if number in begun else ""
        rows.append(
            [
                entrant["label"],
                words.number(estimates[number]),
                f"{1 + best.index(number)} of {len(best)}",
                track,
                el("code", entrant["artifact_digest"][:16]),
            ]
        )
    heads = ["Entrant", "Best estimate", "Place among all policies", "Start of", "Artifact"]
    first = gate.portfolio[best[0]].name
    text = f"Before improvement the judge put {first} first."
    return section("entrants", "Entrants", el("p", text), table(heads, rows))
