"""Scores of all policies in the simulator, and how well the judge ranked what it saw."""

from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.method import Method
from unio4_lib.methods.reporting import Findings, Scored, delivered, finish, score_facts
from unio4_lib.methods.unio4.fact_types import JudgeFacts, Ranking
from unio4_lib.methods.unio4.facts import ope_facts
from unio4_lib.methods.unio4.method import UNIO4
from unio4_lib.methods.unio4.offline_policy import World
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import CANDIDATES, PORTFOLIO, START, read_critics, read_dynamics
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.policy import GaussianPolicy, stack_policies
from unio4_lib.report.aggregate import rank_correlation
from unio4_lib.report.part import read_part
from unio4_lib.report.record import Course, Decision
from unio4_lib.report.summary import Gate
from unio4_lib.settings.weightings import UNIFORM
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import DECISIONS_FILE
from unio4_lib.stages.stored import data_of, read_policy, transitions_of
from unio4_lib.stages.task import Task
from unio4_lib.stages.training import SEED_RANGE, score

RANKING_EPISODES = 20  # of a policy that is scored for the ranking alone


def compute(work: StageWork[UniO4Config]) -> None:
    """Score behavior, offline and online policies, and sum up."""
    report(work, UNIO4)


def report(work: StageWork[UniO4Config], method: Method) -> None:
    """As ``compute``, for a method that has all that Uni-O4 has."""
    transitions = transitions_of(work)
    task = Task.of(transitions)
    with torch_threads(1):
        scores = score_facts(work, _scored_policies(work), transitions.info, task)
        ranking = _ranking(work, task)
    gate = work.facts("offline", Gate)
    if gate.fqe is not None:  # the portfolio comes first in the ranking
        truth = [point.truth for point in ranking.points[: len(gate.fqe.values)]]
        ranking.fqe_rank_correlation = rank_correlation(gate.fqe.values, truth)
    for name in ("rank_correlation", "fqe_rank_correlation"):
        if (correlation := getattr(ranking, name)) is not None:
            work.metrics[f"ope/{name}"] = correlation
    found = Findings(gate, JudgeFacts(ope=ranking), _decisions(work))
    finish(work, method, scores, found)


def _scored_policies(work: StageWork[UniO4Config]) -> list[Scored]:
    """Everything that gets a score of its own.

    "behavior" are the plain clones, or all where none is plain; "start" is the policy of the portfolio from
    which the delivered one came, so that choosing and improving can be told apart.
    """
    behavior = read_policy(work, "behavior")
    names = work.config.behavior.member_weightings()
    plain = [member for member, name in enumerate(names) if name == UNIFORM] or list(range(len(names)))
    found = [Scored("behavior", behavior, member) for member in plain]
    start = load_policy(work.input("offline") / START)[0].to(behavior.observation_mean.device)
    return [*found, Scored("start", start), *delivered(work)]


def _decisions(work: StageWork[UniO4Config]) -> list[Decision]:
    read = {"decisions": work.read("offline", DECISIONS_FILE)}
    return read_part(Course, read, f"offline/{DECISIONS_FILE}", "a file").decisions


def _ranking(work: StageWork[UniO4Config], task: Task) -> Ranking:
    """How well the models' estimates rank all that they judged; nothing is decided by it any more.

    Estimates are made anew: neither the gate's draws nor those of the choice.
    """
    config, folder, gate = work.config, work.input("offline"), work.facts("offline", Gate)
    device = choose_device(config)
    portfolio, tracks = (
        load_policy(folder / name, GaussianPolicy)[0].to(device) for name in (PORTFOLIO, CANDIDATES)
    )
    # Tracks that never passed the gate are where they began: the same policy twice would flatter.
    passed = sorted({entry.member for entry in _decisions(work) if entry.accepted})
    policies = stack_policies([portfolio, tracks.members(passed)] if passed else [portfolio])
    labels = [member.name for member in gate.portfolio] + [f"improved {track}" for track in passed]
    world = World.of(read_critics(work), read_dynamics(work), config)
    limit = task.time_limit()
    evaluator = PolicyEvaluator(data_of(work), world.judging, world.critics, config.improve, time_limit=limit)
    seed = config.evaluate.seed
    estimates = evaluator.estimate(policies, seed=seed % SEED_RANGE).mean(dim=(0, 2)).tolist()
    episodes = min(config.evaluate.episodes, RANKING_EPISODES)

    def truth(index: int) -> tuple[float, float]:
        """As estimates are: over all ways of acting."""
        work.context.preemption.check()
        stats = [
            score(task, policies, episodes, seed, member=index, sampled=way == "sampled")
            for way in evaluator.ways
        ]
        means, errors = [part.mean for part in stats], [part.stderr for part in stats]
        return sum(means) / len(means), sum(error**2 for error in errors) ** 0.5 / len(errors)

    return ope_facts(labels, estimates, truth)
