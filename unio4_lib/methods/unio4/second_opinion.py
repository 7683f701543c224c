"""What fitted Q evaluation says of the policies that the models judged; it decides nothing."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from unio4_lib.judging.fqe import FittedEvaluation
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import LogEntry
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.trainings import SHOWN, stream_seed
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.progress import Reporter
from unio4_lib.report.aggregate import rank_correlation
from unio4_lib.stages.training import train

NAME = "fitted-q"  # of its training
STREAM = 7_101  # of the stage's seed


@dataclass(frozen=True)
class Opinion:
    """Estimates of all policies beside those of the models, and how far both agree."""

    values: list[float]  # of each policy: discounted, by its mean action
    spreads: list[float]  # std over its values
    rank_correlation: float | None  # with the models' estimates of mean actions
    first: int  # of all policies the best one, by this estimate
    agrees: bool  # whether it too puts the models' choice above the plain clone, or level with it


def ask(
    policies: GaussianPolicy,
    data: OfflineData,
    config: UniO4Config,
    reporter: Reporter,
    journal: Journal,
    carried: dict[str, Any],
) -> tuple[Tensor | None, list[LogEntry]]:
    """Estimates [P, critics] and their log, also into what is ``carried``; None where nobody asks."""
    settings = config.fqe
    if settings.steps == 0:
        return None, []
    if (resumed := journal.resumed) is not None and (kept := (resumed["carried"] or {}).get(NAME)):
        return kept["estimates"], [LogEntry(**entry) for entry in kept["log"]]
    seed = stream_seed(config, "improve-policy") + STREAM
    trainer = FittedEvaluation([policies], data, settings, discount=config.discount, seed=seed)
    every, shown = settings.evaluate_every, SHOWN[NAME]
    log = train(trainer, settings.steps, every, NAME, reporter, journal, shown=shown, carried=carried)
    estimates = trainer.estimate().cpu()
    carried[NAME] = {"estimates": estimates, "log": [asdict(entry) for entry in log]}
    return estimates, log


def compare(estimates: Tensor | None, judged: Tensor, chosen: int, clone: int) -> Opinion | None:
    """Beside the models' estimates [P], of which ``chosen`` has the best and ``clone`` is the plain one."""
    if estimates is None:
        return None
    values = estimates.mean(dim=1)
    return Opinion(
        values.tolist(),
        estimates.std(dim=1, correction=0).tolist(),
        rank_correlation(values.tolist(), judged.tolist()),
        int(values.argmax()),
        bool(values[chosen] >= values[clone]),
    )
