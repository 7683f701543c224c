"""Who took part in a tournament, and what became of them."""

from statistics import fmean

from unio4_lib import words
from unio4_lib.methods.tournament.entrants import EntrantsFacts
from unio4_lib.methods.unio4.improvement_section import FITTED, fitted_value, opinion_sentence
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import quiet, section, table
from unio4_lib.report.record import RunRecord


def entrants_section(record: RunRecord) -> Markup:
    """Each entrant with what the judge thought of it, and whether it went on."""
    found = record.stage("train-entrants").facts(EntrantsFacts).entrants
    gate = record.summary.gate
    if not found or gate is None or len(gate.portfolio) < len(found):
        return section("entrants", "Entrants", quiet("This run kept nothing of its entrants."))
    estimates = [fmean(member.estimates.values()) for member in gate.portfolio]  # as the judge ranks
    order = sorted(range(len(estimates)), key=lambda number: -estimates[number])
    rows = []
    for number, entrant in enumerate(found, start=len(estimates) - len(found)):  # they come last
        track = f"track {gate.started_from.index(number)}" if number in gate.started_from else ""
        place = f"{1 + order.index(number)} of {len(order)}"
        digest = el("code", entrant.artifact_digest[:16])
        again = [] if gate.fqe is None else [fitted_value(gate, number)]
        rows.append([entrant.label, words.number(estimates[number]), place, *again, track, digest])
    heads = ["Entrant", "Estimate, over ways of acting", "Place among all policies"]
    heads += [*([] if gate.fqe is None else [FITTED]), "Start of", "Artifact"]
    first = gate.portfolio[order[0]].name
    text = f"Before improvement the judge put a policy of kind {first} first."
    text = " ".join(part for part in (text, opinion_sentence(gate)) if part)
    return section("entrants", "Entrants", el("p", text), table(heads, rows))
