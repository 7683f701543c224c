"""Sentences that the numbers themselves write, also where they are not good news."""

from dataclasses import dataclass
from typing import Literal

from unio4_lib.report import words
from unio4_lib.report.phases import Dip, Phase, change, dip, lowest, phases, start, steps_taken
from unio4_lib.report.record import RunRecord

Level = Literal["good", "watch", "bad"]

# Where good ends and where watching ends; what lies beyond is bad.
CLONE_SHARE = (0.9, 0.6)  # of the data's mean return
CORRELATION = (0.8, 0.5)  # of values with Monte-Carlo returns
MISSED = 0.2  # of the recorded return, by the models
MODEL_ERROR = (0.05, 0.2)  # squared, in variances of the targets: 0.05 leaves 5% unexplained
WITHIN_ONE_STD = ((0.55, 0.80), (0.4, 0.92))  # 0.683 for a Gaussian whose variance is right
RANKS = (0.6, 0.3)  # rank correlation of estimates with true returns
SWITCH = (0.9, 0.7)  # worst early return over the offline one
EPISODES = (50, 10)
HALF = 0.5  # of the offline score: below it fine-tuning has lost more than a part
LATER_LOW = 0.1  # how much deeper than the dip a later low must be to be worth a sentence
FEW_POLICIES = 8  # fewer say little about a ranking
AT_BOUNDS = (0.25, 0.6)  # share of actions that stand at a bound


@dataclass(frozen=True)
class Check:
    """One reason to trust a run, or not to."""

    level: Level
    what: str
    why: str


def level_above(value: float, borders: tuple[float, float]) -> Level:
    return "good" if value >= borders[0] else "watch" if value >= borders[1] else "bad"


def level_below(value: float, borders: tuple[float, float]) -> Level:
    return "good" if value <= borders[0] else "watch" if value <= borders[1] else "bad"


def headline(record: RunRecord) -> str:
    """The run in two or three sentences."""
    sentences = [offline_sentence(record), online_sentence(record)]
    return " ".join(sentence for sentence in sentences if sentence)


def offline_sentence(record: RunRecord) -> str:
    """Whether the offline phase helped: against the plain clones, the data and the policy's own start."""
    found = phases(record)
    if "clones" not in found or "offline" not in found:
        return ""
    clones, offline, data = found["clones"], found["offline"], found["data"]
    moved = change(clones, offline)
    if moved.direction == 0:
        text = (
            f"The offline phase left the return where the plain clones stand: {_score(offline)} against "
            f"{_score(clones)}, a difference within its error"
        )
    else:
        verb = "raised" if moved.direction > 0 else "lowered"
        amount = _amount(moved.ratio, moved.difference)
        text = (
            f"The offline phase {verb} the return by {amount}, from the plain clones' {_score(clones)} to "
            f"{_score(offline)}"
        )
    if data.mean > 0:
        text += f", {words.ratio(offline.mean / data.mean)} times the data's mean"
    return f"{text}. {_own_start_sentence(record, offline, raised=moved.direction > 0)}".rstrip()


def _own_start_sentence(record: RunRecord, offline: Phase, *, raised: bool) -> str:
    """What improvement alone did, apart from the choice of where to begin."""
    begun, taken = start(record), steps_taken(record)
    if begun is None or taken is None:
        return ""
    if not (record.summary["gate"].get("trust") or {"trusted": True})["trusted"]:
        return "The models were not trusted, so it is a clone as it was cloned."
    if taken[0] == 0:
        return "The gate let no change of it pass, so it is the policy that the judge chose to begin with."
    moved = change(begun, offline)
    if moved.direction == 0:
        return f"It is level with its own start ({_score(begun)})."
    if moved.direction < 0:
        return f"It is worse than its own start ({_score(begun)}): the gate let a worse policy pass."
    amount = _amount(moved.ratio, moved.difference)
    text = f"teps behind the gate added {amount} to its own start ({_score(begun)})."
    return f"Of that, s{text}" if raised else f"S{text}"


def online_sentence(record: RunRecord) -> str:
    """What happened at the switch, and where fine-tuning ended."""
    found, fall = phases(record), dip(record)
    if "online" not in found or "offline" not in found:
        return ""
    moved = change(found["offline"], found["online"])
    start, joint = "Fine-tuning", ""
    if fall is not None and fall.ratio is not None:
        start, joint = _switch_clause(fall, fall.ratio), ", then"
    final = found["online"]
    times = (
        f"{words.ratio(moved.ratio)} times the offline score"
        if moved.ratio is not None
        else _amount(None, moved.difference) + (" above" if moved.difference > 0 else " below") + " it"
    )
    way = _way_clause(record)
    if moved.direction == 0:
        return f"{start}{joint} ended where it began: {_score(final)}, {times}.{way}"
    if moved.direction > 0:
        return f"{start}{joint} rose to {times}: {_score(final)}.{way}"
    half = moved.ratio is None or moved.ratio < HALF
    lost = "Fine-tuning lost what offline learning had." if half else "Fine-tuning lost a part of it."
    return f"{start}{joint} ended at {times}: {_score(final)}. {lost}"


def _switch_clause(fall: Dip, share: float) -> str:
    scale = f"{words.ratio(share)} of the score before the first step"
    where = f"at {words.count(fall.steps)} steps"
    if fall.looks == 1:
        where += ", the one early look"
    if share >= 1:
        return f"Fine-tuning started without a dip ({scale} {where})"
    if share >= SWITCH[0]:
        return f"Fine-tuning hardly dipped ({scale} {where})"
    return f"Fine-tuning dipped to {scale} {where}"


def _way_clause(record: RunRecord) -> str:
    """A later low that was deeper than the one at the switch, said too."""
    fall, low = dip(record), lowest(record)
    if fall is None or low is None or fall.ratio is None or low.ratio is None:
        return ""
    if low.ratio >= min(fall.ratio, 1.0) - LATER_LOW:
        return ""
    return f" On the way it stood at {words.ratio(low.ratio)} at {words.count(low.steps)} steps."


def _score(phase: Phase) -> str:
    return words.with_error(phase.mean, phase.stderr)


def _amount(ratio: float | None, difference: float) -> str:
    return words.number(abs(difference)) if ratio is None else words.percent(abs(ratio - 1))


def checks(record: RunRecord) -> list[Check]:
    """Every reason for or against trust that the record has numbers for."""
    found = (
        data_check(record),
        clones_check(record),
        critics_check(record),
        models_check(record),
        spread_check(record),
        trust_check(record),
        gate_check(record),
        ranking_check(record),
        switch_check(record),
        result_check(record),
    )
    return [check for check in found if check is not None]


def data_check(record: RunRecord) -> Check | None:
    dataset = record.summary["dataset"]
    episodes = dataset.get("episodes")
    if episodes is None:
        return None
    level = level_above(episodes, EPISODES)
    text = f"{words.count(dataset.get('transitions', 0))} transitions in {words.count(episodes)} episodes"
    actions = record.stage("prepare-dataset").facts.get("actions")
    if not actions:
        return Check(level, "Enough data", f"{text}.")
    share = sum(row["share_at_low"] + row["share_at_high"] for row in actions) / len(actions)
    bounds = level_below(share, AT_BOUNDS)
    worst = max((level, bounds), key=("good", "watch", "bad").index)
    return Check(worst, "Enough data", f"{text}; {words.percent(share)} of the actions are at a bound.")


def clones_check(record: RunRecord) -> Check | None:
    found = phases(record)
    if "clones" not in found or found["data"].mean <= 0:
        return None
    share = found["clones"].mean / found["data"].mean
    text = f"Their mean action returns {words.ratio(share)} times what the data returns on average."
    return Check(level_above(share, CLONE_SHARE), "Clones reach the data", text)


def critics_check(record: RunRecord) -> Check | None:
    stage = record.stage("fit-critics")
    found = stage.facts.get("correlation", stage.last("critics/value_return_correlation"))
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
    gate = record.summary.get("gate") or {}
    trust = gate.get("trust")
    if trust is None:
        return None
    recorded, modeled = trust["recorded"], trust["modeled"]
    text = (
        f"Clones of kind {trust['weighting']} return {words.number(modeled)} in the models; the data "
        f"recorded {words.number(recorded)} under the same weights."
    )
    if not trust["trusted"]:
        return Check("bad", "Models may judge", f"{text} Too far apart: nothing was accepted.")
    share = abs(modeled - recorded) / max(abs(recorded), 1e-9)
    return Check("good" if share <= MISSED else "watch", "Models may judge", text)


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
    ranking = record.stage("report").facts.get("ope") or {}
    found = ranking.get("rank_correlation")
    if found is None:
        return None
    policies, level = len(ranking["points"]), level_above(found, RANKS)
    text = (
        f"Over {policies} policies, estimates from the models and true returns have a rank "
        f"correlation of {words.ratio(found)}"
    )
    if policies < FEW_POLICIES:
        return Check("watch", "Estimates rank policies", f"{text}; so few policies say little.")
    return Check(level, "Estimates rank policies", f"{text}.")


def switch_check(record: RunRecord) -> Check | None:
    fall = dip(record)
    if fall is None or fall.ratio is None:
        return None
    text = (
        f"The worst of {words.count(fall.looks)} looks in the first tenth after the policy began to move was "
        f"{words.number(fall.mean)}, {words.ratio(fall.ratio)} of the {words.number(fall.before)} before the "
        "first step."
    )
    level = level_above(fall.ratio, SWITCH)
    if fall.looks == 1:
        text = text.replace("The worst of 1 looks", "The one look")
        level = "watch" if level == "good" else level
        text += " One look can miss a drop."
    return Check(level, "No drop at the switch", text)


def result_check(record: RunRecord) -> Check | None:
    found = phases(record)
    if "online" not in found or "offline" not in found:
        return None
    moved = change(found["offline"], found["online"])
    pair = f"{_score(found['online'])} after, {_score(found['offline'])} before"
    if moved.direction > 0:
        return Check("good", "Fine-tuning helped", f"{pair}.")
    if moved.direction < 0:
        return Check("bad", "Fine-tuning helped", f"It did not: {pair}.")
    return Check("watch", "Fine-tuning helped", f"Not beyond the error: {pair}.")
