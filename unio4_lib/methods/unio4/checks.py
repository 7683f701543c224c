"""Reasons to trust a run of Uni-O4, or not to."""

from unio4_lib import words
from unio4_lib.methods.unio4.fact_types import CriticsFacts, JudgeFacts
from unio4_lib.report.phases import change, phases, start, steps_taken
from unio4_lib.report.record import RunRecord
from unio4_lib.report.verdicts import Check, Level, level_above, level_below

# Where good ends and where watching ends; what lies beyond is bad.
CLONE_SHARE = (0.9, 0.6)  # of the data's mean return
CORRELATION = (0.8, 0.5)  # of values with Monte-Carlo returns
MISSED = 0.2  # of the recorded return, by the models
MODEL_ERROR = (0.05, 0.2)  # squared, in variances of the targets: 0.05 leaves 5% unexplained
WITHIN_ONE_STD = ((0.55, 0.80), (0.4, 0.92))  # 0.683 for a Gaussian whose variance is right
RANKS = (0.6, 0.3)  # rank correlation of estimates with true returns
FEW_POLICIES = 8  # fewer say little about a ranking


def clones_check(record: RunRecord) -> Check | None:
    found = phases(record)
    if "clones" not in found or "data" not in found or found["data"].mean <= 0:
        return None
    share = found["clones"].mean / found["data"].mean
    text = f"Their mean action returns {words.ratio(share)} times what the data returns on average."
    return Check(level_above(share, CLONE_SHARE), "Clones reach the data", text)


def critics_check(record: RunRecord) -> Check | None:
    stage = record.stage("fit-critics")
    found = stage.facts(CriticsFacts).correlation
    if found is None:
        found = stage.last("critics/value_return_correlation")
    if found is None:
        return None
    text = f"Values and the returns that followed in the data have a correlation of {words.ratio(found)}."
    return Check(level_above(found, CORRELATION), "Critics follow returns", text)


def models_check(record: RunRecord) -> Check | None:
    error = record.stage("fit-dynamics").last("dynamics/holdout_squared_error")
    if error is None:
        return None
    text = f"On held-out episodes they leave {words.percent(error)} of a step's variance unexplained."
    return Check(level_below(error, MODEL_ERROR), "Models predict a step", text)


def spread_check(record: RunRecord) -> Check | None:
    share = record.stage("fit-dynamics").last("dynamics/within_one_std")
    if share is None:
        return None
    inner, outer = WITHIN_ONE_STD
    level: Level = (
        "good" if inner[0] <= share <= inner[1] else "watch" if outer[0] <= share <= outer[1] else "bad"
    )
    side = (
        "too sure of themselves" if share < inner[0] else "too modest" if share > inner[1] else "about right"
    )
    text = f"{words.percent(share)} of errors lie within one predicted std (68% would be exact): {side}."
    return Check(level, "Models know their error", text)


def trust_check(record: RunRecord) -> Check | None:
    trust = record.summary.gate.trust if record.summary.gate is not None else None
    if trust is None:
        return None
    recorded, modeled = trust.recorded, trust.modeled
    text = (
        f"Clones of kind {trust.weighting} return {words.number(modeled)} in the models; the data "
        f"recorded {words.number(recorded)} under the same weights."
    )
    if not trust.trusted:
        return Check("bad", "Models may judge", f"{text} Too far apart: nothing was accepted.")
    share = abs(modeled - recorded) / max(abs(recorded), 1e-9)
    return Check("good" if share <= MISSED else "watch", "Models may judge", text)


def opinion_check(record: RunRecord) -> Check | None:
    """Whether the second estimate orders policies as the models do; where both differ, one is wrong."""
    gate = record.summary.gate
    if gate is None or gate.fqe is None or gate.fqe.rank_correlation is None:
        return None
    found, policies = gate.fqe.rank_correlation, len(gate.fqe.values)
    text = f"Over {policies} policies, fitted Q evaluation and the models have a rank correlation of "
    text += words.ratio(found)
    level = level_above(found, RANKS)
    if policies < FEW_POLICIES or (level == "good" and not gate.fqe.agrees):
        level = "watch"
    end = "and neither puts the choice" if gate.fqe.agrees else "but the former puts the models' choice"
    return Check(level, "Estimates agree", f"{text}, {end} below a plain clone.")


def gate_check(record: RunRecord) -> Check | None:
    """Whether what the gate let pass was better; where it let nothing pass there is nothing to judge."""
    found, begun, taken = phases(record), start(record), steps_taken(record)
    if taken is None or taken[0] == 0 or "offline" not in found or begun is None:
        return None
    moved = change(begun, found["offline"])
    passed = f"{words.count(taken[0])} of {words.count(taken[1])} candidates for the delivered policy passed"
    if moved.direction < 0:
        text = f"{passed}, and what they led to is worse than its start in the simulator."
        return Check("bad", "Gate kept its word", text)
    text = (
        f"{passed}; the delivered policy is {'better than' if moved.direction else 'level with'} its start."
    )
    return Check("good" if moved.direction else "watch", "Gate kept its word", text)


def ranking_check(record: RunRecord) -> Check | None:
    ranking = record.stage("report").facts(JudgeFacts).ope
    if ranking is None or ranking.rank_correlation is None:
        return None
    found, policies = ranking.rank_correlation, len(ranking.points)
    level = level_above(found, RANKS)
    text = (
        f"Over {policies} policies, estimates from the models and true returns have a rank "
        f"correlation of {words.ratio(found)}"
    )
    if policies < FEW_POLICIES:
        return Check("watch", "Estimates rank policies", f"{text}; so few policies say little.")
    return Check(level, "Estimates rank policies", f"{text}.")
