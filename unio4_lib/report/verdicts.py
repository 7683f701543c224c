"""Sentences that the numbers themselves write, also where they are not good news."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unio4_lib import words
from unio4_lib.report.facts import DatasetFacts
from unio4_lib.report.phases import Change, Dip, Phase, change, dip, lowest, phases, start, steps_taken
from unio4_lib.report.record import RunRecord

Level = Literal["good", "watch", "bad"]

# Where good ends and where watching ends; what lies beyond is bad.
SWITCH = (0.9, 0.7)  # worst early return over the offline one
EPISODES = (50, 10)
HALF = 0.5  # of the offline score: below it fine-tuning has lost more than a part
LATER_LOW = 0.1  # how much deeper than the dip a later low must be to be worth a sentence
AT_BOUNDS = (0.25, 0.6)  # share of actions that stand at a bound


@dataclass(frozen=True)
class Check:
    """One reason to trust a run, or not to."""

    level: Level
    what: str
    why: str


CheckOf = Callable[[RunRecord], Check | None]


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
    if "offline" not in found:
        return ""
    if "clones" not in found:
        return _beside_data(found)
    clones, offline, data = found["clones"], found["offline"], found.get("data")
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
    if data is not None and data.mean > 0:
        text += f", {words.ratio(offline.mean / data.mean)} times the data's mean"
    return f"{text}. {_own_start_sentence(record, offline, raised=moved.direction > 0)}".rstrip()


def _beside_data(found: dict[str, Phase]) -> str:
    """Of a method that makes no clones to be compared with."""
    text = f"Offline learning came to {_score(found['offline'])}"
    if "data" not in found:
        return f"{text}."
    share = change(found["data"], found["offline"]).ratio
    beside = f", beside {words.number(found['data'].mean)} of the data on average"
    if share is not None:
        beside = f", {words.ratio(share)} times the data's mean of {words.number(found['data'].mean)}"
    worse = found["offline"].mean < found["data"].mean
    return f"{text}{beside}{': less than was there already' if worse else ''}."


def _own_start_sentence(record: RunRecord, offline: Phase, *, raised: bool) -> str:
    """What improvement alone did, apart from the choice of where to begin."""
    begun, taken = start(record), steps_taken(record)
    if begun is None or taken is None:
        return ""
    if record.summary.gate is not None and not record.summary.gate.trusted:
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
    beside, way = _beside_offline(moved), _way_clause(record)
    if moved.direction == 0:
        return f"{start}{joint} ended where it began: {_score(final)}{f', {beside}' if beside else ''}.{way}"
    if moved.direction > 0:
        return f"{start}{joint} rose to {beside}: {_score(final)}.{way}"
    if moved.ratio is None:
        return f"{start}{joint} ended {beside}: {_score(final)}. It made the policy worse."
    lost = "what offline learning had" if moved.ratio < HALF else "a part of it"
    return f"{start}{joint} ended at {beside}: {_score(final)}. Fine-tuning lost {lost}."


def _beside_offline(moved: Change) -> str:
    """How far from the offline score; empty where a ratio says nothing and there is no difference."""
    if moved.ratio is not None:
        return f"{words.ratio(moved.ratio)} times the offline score"
    if moved.difference == 0:
        return ""
    side = "above" if moved.difference > 0 else "below"
    return f"{words.number(abs(moved.difference))} {side} the offline score"


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


def checks(record: RunRecord, own: Sequence[CheckOf]) -> list[Check]:
    """Every reason for or against trust that the record has numbers for; in the middle the method's own."""
    found = [check(record) for check in (data_check, *own, switch_check, result_check)]
    return [check for check in found if check is not None]


def data_check(record: RunRecord) -> Check | None:
    dataset = record.summary.dataset
    episodes = dataset.episodes
    if episodes is None:
        return None
    level = level_above(episodes, EPISODES)
    text = f"{words.count(dataset.transitions)} transitions in {words.count(episodes)} episodes"
    actions = record.stage("prepare-dataset").facts(DatasetFacts).actions
    if not actions:
        return Check(level, "Enough data", f"{text}.")
    share = sum(row.share_at_low + row.share_at_high for row in actions) / len(actions)
    bounds = level_below(share, AT_BOUNDS)
    worst = max((level, bounds), key=("good", "watch", "bad").index)
    return Check(worst, "Enough data", f"{text}; {words.percent(share)} of the actions are at a bound.")


def switch_check(record: RunRecord) -> Check | None:
    fall = dip(record)
    if fall is None or fall.ratio is None:
        return None
    # A single one is the first, which may lie after that tenth.
    several = f"worst of {words.count(fall.looks)} looks in the first tenth"
    text = (
        f"The {several if fall.looks > 1 else 'one early look'} after the policy began to move was "
        f"{words.number(fall.mean)}, {words.ratio(fall.ratio)} of the {words.number(fall.before)} before the "
        "first step."
    )
    level = level_above(fall.ratio, SWITCH)
    if fall.looks == 1:
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
