"""Uni-O4 as the rest of the house sees it."""

from pathlib import Path

from unio4_lib.methods.method import Method
from unio4_lib.methods.unio4 import sizes
from unio4_lib.methods.unio4.panels import CHECKS, PANELS
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.step import DATA_KEYS, PREPARE, Step

STEPS = "unio4_lib.methods.unio4.steps"
LEARNED = ("seed", "device", *DATA_KEYS)

UNIO4 = Method(
    name="unio4",
    about="clones and extracted policies, judged in learned models, improved behind a gate; PPO online",
    settings=UniO4Config,
    presets=(Path(__file__).parent / "presets",),
    pipeline="unio4",
    gated=True,
    panels=PANELS,
    checks=CHECKS,
    steps=(
        PREPARE,
        Step(
            "clone-behavior",
            "behavior",
            ("dataset",),
            (*LEARNED, "critics.discount", "behavior"),
            f"{STEPS}.clone",
            "Several policies imitate the data. `holdout_log_likelihood` should rise, then settle.",
            phase="clones",
            amount=("behavior.steps", "updates"),
            layers=sizes.cloning,
        ),
        Step(
            "fit-critics",
            "critics",
            ("dataset",),
            (*LEARNED, "critics"),
            f"{STEPS}.critics",
            "Learns values from the data. `value_mean` should come close to `return_mean`.",
            phase="offline",
            amount=("critics.steps", "updates"),
            layers=sizes.critics,
        ),
        Step(
            "fit-dynamics",
            "dynamics",
            ("dataset",),
            (*LEARNED, "critics.discount", "dynamics"),
            f"{STEPS}.dynamics",
            "Learns models of the environment. `holdout_squared_error` should fall far below 1.",
            phase="offline",
            amount=("dynamics.steps", "updates"),
            layers=sizes.models,
        ),
        Step(
            "improve-policy",
            "offline",
            ("dataset", "behavior", "critics", "dynamics"),
            (*LEARNED, "critics.discount", "behavior", "extract", "improve", "fqe"),
            f"{STEPS}.improve",
            "Improves each clone offline. `gate/` has every check of a candidate: it replaces the "
            "current policy only where `accepted` is 1.",
            phase="offline",
            amount=("improve.steps", "updates"),
            layers=sizes.improvement,
            timed=sizes.judgement,
            memory=sizes.walks,
        ),
        Step(
            "finetune-online",
            "online",
            ("dataset", "critics", "offline"),
            (*LEARNED, "critics.discount", "finetune", "evaluate.seed"),
            f"{STEPS}.finetune",
            "Fine-tunes the policy in the environment. `return` is its learning curve over "
            "environment steps.",
            phase="online",
            amount=("finetune.env_steps", "env steps"),
            layers=sizes.online,
            timed=sizes.tuned,
            memory=sizes.environments,
        ),
        Step(
            "report",
            "report",
            ("dataset", "behavior", "critics", "dynamics", "offline", "online"),
            (
                *("method", "dataset", "seed", "device", "prepare"),
                *("behavior", "critics", "dynamics", "extract", "improve", "fqe", "finetune", "evaluate"),
            ),
            f"{STEPS}.report",
            "Scores all policies in the environment and writes the report (see Artifacts).",
            optional=("online",),
        ),
    ),
)
