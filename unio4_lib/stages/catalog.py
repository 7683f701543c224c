"""The stages: what each takes, what it makes, and which settings can change what it makes."""

from collections.abc import Collection
from dataclasses import dataclass

from unio4_lib.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One stage of the method; ``module`` has a function ``compute(work)``."""

    name: str
    kind: str  # of the one artifact that comes out
    inputs: tuple[str, ...]  # kinds
    reads: tuple[str, ...]  # sections and keys of the config, all that may change the result
    module: str
    optional: tuple[str, ...] = ()  # of the inputs: what is not there is left out


# Files and folders of artifacts that more than one place knows.
LOG_FILE, FACTS_FILE = "log.json", "facts.json"
DECISIONS_FILE, CURVE_FILE, SUMMARY_FILE = "decisions.json", "curve.json", "summary.json"
STAGE_FACTS_FILE = "stage-facts.json"  # of all stages, in the report
POLICY = "policy"

# How OfflineData is built from the rows; clip_actions belongs to the rows themselves.
DATA_KEYS = tuple(
    f"prepare.{key}" for key in ("normalize_observations", "std_floor", "reward_scaling", "reward_scale")
)
SCORED = ("dataset", "behavior", "critics", "dynamics", "offline", "online")

STAGES = (
    Stage("prepare-dataset", "dataset", (), ("dataset", "prepare.clip_actions"), "unio4_lib.stages.prepare"),
    Stage(
        "clone-behavior",
        "behavior",
        ("dataset",),
        ("seed", "device", *DATA_KEYS, "critics.discount", "behavior"),
        "unio4_lib.methods.unio4.steps.clone",
    ),
    Stage(
        "fit-critics",
        "critics",
        ("dataset",),
        ("seed", "device", *DATA_KEYS, "critics"),
        "unio4_lib.methods.unio4.steps.critics",
    ),
    Stage(
        "fit-dynamics",
        "dynamics",
        ("dataset",),
        ("seed", "device", *DATA_KEYS, "critics.discount", "dynamics"),
        "unio4_lib.methods.unio4.steps.dynamics",
    ),
    Stage(
        "improve-policy",
        "offline",
        ("dataset", "behavior", "critics", "dynamics"),
        ("seed", "device", *DATA_KEYS, "critics.discount", "behavior", "extract", "improve"),
        "unio4_lib.methods.unio4.steps.improve",
    ),
    Stage(
        "finetune-online",
        "online",
        ("dataset", "critics", "offline"),
        ("seed", "device", *DATA_KEYS, "critics.discount", "finetune", "evaluate.seed"),
        "unio4_lib.methods.unio4.steps.finetune",
    ),
    Stage(
        "report",
        "report",
        SCORED,
        (
            *("method", "dataset", "seed", "device"),
            *("prepare", "behavior", "critics", "dynamics", "extract", "improve", "finetune", "evaluate"),
        ),
        "unio4_lib.stages.report",
        optional=("online",),
    ),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
STAGE_OF_KIND = {stage.kind: stage.name for stage in STAGES}


def final_policy(kinds: Collection[str]) -> str:
    """The last policy that a run made."""
    return "online" if "online" in kinds else "offline"


def find_stage(name: str) -> Stage:
    """The stage of a name."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise InputError(f"stage {name}: no such stage; expected one of {', '.join(STAGE_NAMES)}")
