"""The last stage of a tournament."""

from unio4_lib.methods.tournament.method import TOURNAMENT
from unio4_lib.methods.tournament.settings import TournamentConfig
from unio4_lib.methods.unio4.steps.report import report
from unio4_lib.stages.runner import StageWork


def compute(work: StageWork[TournamentConfig]) -> None:
    """Scores as in a run of Uni-O4."""
    report(work, TOURNAMENT)
