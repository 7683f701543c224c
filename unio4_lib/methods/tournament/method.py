"""The tournament as the rest of the house sees it: Uni-O4 with policies of others among those it judges."""

from dataclasses import replace
from pathlib import Path

from unio4_lib.methods.method import Method
from unio4_lib.methods.tournament.entrants import entrants_of
from unio4_lib.methods.tournament.section import entrants_section
from unio4_lib.methods.tournament.settings import TournamentConfig
from unio4_lib.methods.unio4.method import LEARNED, UNIO4
from unio4_lib.stages.step import DATASET, PREPARE, Layers, Step

ROOM = "unio4_lib.methods.tournament"
IMPROVE, REPORT = UNIO4.step("improve-policy"), UNIO4.step("report")


def _layers(config: TournamentConfig) -> list[Layers]:
    """The networks of all entrants."""
    found = entrants_of(config.entrants, config)
    return [layers for entrant in found for layers in entrant.step.layers(entrant.config)]


def _modules(config: TournamentConfig) -> list[str]:
    """Where the code of the entrants lies."""
    return list(dict.fromkeys(entrant.step.module for entrant in entrants_of(config.entrants, config)))


TOURNAMENT = Method(
    name="tournament",
    about="policies of several methods before one judge; the best improved behind a gate, PPO online",
    settings=TournamentConfig,
    presets=(*UNIO4.presets, Path(__file__).parent / "presets"),
    pipeline="tournament",
    gated=True,
    panels=(("entrants", "Entrants", entrants_section), *UNIO4.panels),
    checks=UNIO4.checks,
    steps=(
        PREPARE,
        UNIO4.step("clone-behavior"),
        UNIO4.step("fit-critics"),
        UNIO4.step("fit-dynamics"),
        Step(
            "train-entrants",
            "entrants",
            (DATASET,),
            (*LEARNED, "train", "entrants"),
            f"{ROOM}.steps",
            "Trains the policy of each entrant on the dataset. Curves have its name in front.",
            phase="offline",
            function="train_entrants",
            uses=_modules,
            layers=_layers,
        ),
        replace(
            IMPROVE,
            inputs=(*IMPROVE.inputs, "entrants"),
            module=f"{ROOM}.steps",
            function="improve",
        ),
        UNIO4.step("finetune-online"),
        replace(
            REPORT,
            inputs=(*REPORT.inputs[:-2], "entrants", *REPORT.inputs[-2:]),
            reads=(*REPORT.reads, "train", "entrants"),
            module=f"{ROOM}.report",
        ),
    ),
)
