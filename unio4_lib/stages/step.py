"""A step of a method: what it takes, what it makes, and which settings can change what it makes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

# Files and folders of artifacts that more than one place knows.
LOG_FILE, FACTS_FILE = "log.json", "facts.json"
DECISIONS_FILE, CURVE_FILE, SUMMARY_FILE = "decisions.json", "curve.json", "summary.json"
STAGE_FACTS_FILE = "stage-facts.json"  # of all stages, in the report
POLICY = "policy"

DATASET, OFFLINE, ONLINE, REPORT = "dataset", "offline", "online", "report"  # kinds that every method makes
# How OfflineData is built from the rows; clip_actions belongs to the rows themselves.
DATA_KEYS = tuple(
    f"prepare.{key}" for key in ("normalize_observations", "std_floor", "reward_scaling", "reward_scale")
)

Estimates = list[tuple[str, int]]  # settings in words, and the bytes that they ask for at the least


class Layers(NamedTuple):
    """Networks of one shape in a stage, and how often they work: what can be said of it beforehand."""

    settings: str  # that say so
    members: int
    hidden: tuple[int, ...]
    rows: int  # of a minibatch
    updates: int
    learns: bool = True  # else it is only asked


def _none(_config: Any) -> list[Any]:
    return []


@dataclass(frozen=True)
class Step:
    """One stage of a method; ``function`` of ``module`` takes the work in hand."""

    name: str
    kind: str  # of the one artifact that comes out
    inputs: tuple[str, ...]  # kinds
    reads: tuple[str, ...]  # sections and keys of the config, all that may change the result
    module: str
    about: str  # what it does, and what is to be looked at, in a sentence or two
    phase: str = ""  # of the journey from the data to the last policy
    amount: tuple[str, str] = ("", "")  # the setting with the amount of its work, and the word for one of it
    optional: tuple[str, ...] = ()  # of the inputs: what is not there is left out
    function: str = "compute"
    layers: Callable[[Any], list[Layers]] = _none  # that it trains
    timed: Callable[[Any], list[Layers]] = _none  # that come from other stages, but take time in this one
    memory: Callable[[Any], Estimates] = _none  # beside its layers
    uses: Callable[[Any], list[str]] = _none  # modules that its settings name: their code counts


PREPARE = Step(
    "prepare-dataset",
    DATASET,
    (),
    ("dataset", "prepare.clip_actions"),
    "unio4_lib.stages.prepare",
    "Checks the dataset and stores the rows that every other stage reads.",
    phase="data",
)


def final_policy(kinds: Collection[str]) -> str:
    """The last policy that a run made."""
    return ONLINE if ONLINE in kinds else OFFLINE
