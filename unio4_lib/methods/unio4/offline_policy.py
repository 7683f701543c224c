"""The offline phase behind clones, critics and models: extract, judge, improve, choose.

Many policies are cheap to make and none is safe to trust; the learned models judge them all alike, from
the same starts with the same noise, and stand before every replacement afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unio4_lib.judging.dynamics import DynamicsModel
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.judging.trust import Trust, judge_models
from unio4_lib.learning.cloning import CloningTrainer
from unio4_lib.learning.critics import Critics
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.loop import LogEntry
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import data_advantages, promised_gain
from unio4_lib.methods.unio4.advantages import CriticAdvantages
from unio4_lib.methods.unio4.improve import GateEntry, ImproveTrainer, rank
from unio4_lib.methods.unio4.learners import CriticLearner, Learner, ModelLearner
from unio4_lib.methods.unio4.second_opinion import NAME, Opinion, ask, compare
from unio4_lib.methods.unio4.settings import SELECTION_FACTOR, UniO4Config
from unio4_lib.methods.unio4.trainings import SHOWN, stream_seed
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec, stack_policies
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import ImproveConfig
from unio4_lib.settings.weightings import UNIFORM
from unio4_lib.stages.training import train

SAMPLED_GAIN = 0.15  # of the mean action's estimate, from which sampled actions are delivered
PROMISED_GAIN = 0.5  # of the data's mean return, from which a clone of the better episodes is the safest one
EXTRACTION_STREAM = 7_001  # of the stage's seed


@dataclass(frozen=True)
class World:
    """What was learned of the data: critics, the models to learn in, and those that judge."""

    critics: Critics
    training: DynamicsModel
    judging: DynamicsModel

    @classmethod
    def of(cls, critics: Critics, model: DynamicsModel, config: UniO4Config) -> "World":
        """Where nothing is trained in the models (advantages=critic), all of them judge."""
        if config.improve.advantages == "critic":
            return cls(critics, model, model)
        training, others = model.halves()
        return cls(critics, training, others if config.improve.judges == "others" else model)


@dataclass(frozen=True)
class Strangers:
    """Policies that were not cloned here, in the shape of those that were, for the same judge."""

    policies: GaussianPolicy
    names: list[str]


@dataclass(frozen=True)
class Member:
    """One policy that the judge looked at."""

    name: str  # its weighting, or who trained it
    estimates: dict[str, float]  # by way of acting


@dataclass(frozen=True)
class Improvement:
    """What the offline phase delivers, and how it came to that."""

    policies: GaussianPolicy  # of all tracks, as accepted
    start: list[int]  # of each track, the portfolio's member that it began from
    chosen: int  # track
    acts: str  # mean | sampled: how the chosen one is to act
    portfolio: GaussianPolicy
    members: list[Member]
    estimates: list[dict[str, float]]  # of the tracks, by the final choice
    trust: Trust | None
    opinion: Opinion | None  # of the portfolio
    decisions: list[GateEntry]
    log: list[LogEntry]


def make_learner(start: GaussianPolicy, data: OfflineData, world: World, config: UniO4Config) -> Learner:
    """Makes the candidates by the configured kind of advantages."""
    settings, seed = config.improve, stream_seed(config, "improve-policy")
    if settings.advantages == "model":
        return ModelLearner(start, data, world.training, settings, seed=seed)
    source = CriticAdvantages(data, world.critics, start, settings, seed=seed)
    return CriticLearner(start, source, settings)


def improve_policy(
    data: OfflineData,
    behavior: GaussianPolicy,
    world: World,
    config: UniO4Config,
    reporter: Reporter,
    *,
    time_limit: int | None,
    strangers: Strangers | None = None,
    journal: Journal | None = None,
    make_learner: Callable[[GaussianPolicy, OfflineData, World, UniO4Config], Learner] = make_learner,
) -> Improvement:
    """The best policy that the dataset and the models can vouch for."""
    settings, seed = config.improve, stream_seed(config, "improve-policy")
    journal = journal or Journal()
    extracted, log = _extract(data, world, config, reporter, journal)
    names = config.behavior.member_weightings()
    portfolio, judged = _portfolio(behavior, extracted, strangers, config)
    evaluator = PolicyEvaluator(data, world.judging, world.critics, settings, time_limit=time_limit)
    starts = SELECTION_FACTOR * settings.starts
    estimates = evaluator.estimate(portfolio, seed=seed - 2, starts=starts)
    carried: dict[str, Any] = {"extracted": None if extracted is None else extracted.state_dict()}
    carried["log"] = [vars(entry) for entry in log]
    fitted, more = ask(portfolio, data, config, reporter, journal, carried)
    trust = _trust(data, behavior, world, config, time_limit=time_limit, seed=seed - 3)
    trusted = trust is None or trust.trusted
    order = rank(estimates) if trusted else [_safest(names, data, estimates[0].mean(dim=1))]
    begin = order[: min(settings.members, len(order))]
    start = portfolio.members(begin)
    trainer = ImproveTrainer(start, make_learner(start, data, world, config), evaluator, settings, seed=seed)
    log = log + more
    if trusted:
        log = log + train(
            trainer,
            settings.steps,
            settings.evaluate_every,
            "improve-policy",
            reporter,
            journal,
            shown=SHOWN["improve-policy"],
            carried=carried,
        )
    last = evaluator.estimate(trainer.accepted, seed=seed - 1, starts=starts)
    chosen = choose_track(estimates[:, begin], last, settings)
    return Improvement(
        trainer.accepted,
        begin,
        chosen,
        _acts(evaluator.ways, last[:, chosen]) if trusted else "mean",
        portfolio,
        [
            Member(name, dict(zip(evaluator.ways, column.tolist(), strict=True)))
            for name, column in zip(judged, estimates.mean(dim=2).T, strict=True)
        ],
        [dict(zip(evaluator.ways, column.tolist(), strict=True)) for column in last.mean(dim=2).T],
        trust,
        compare(fitted, estimates[0].mean(dim=1), order[0], names.index(UNIFORM) if UNIFORM in names else 0),
        trainer.log,
        log,
    )


def choose_track(first: Tensor, last: Tensor, config: ImproveConfig) -> int:
    """The track to deliver, by estimates [W, T, S] of what each began from and of what became of it.

    Improvement finds what the models get wrong, more of it the longer it goes on, and the highest of several
    estimates is the one with the largest error. So of a gain only the share ``believed_gain`` counts, and the
    tracks are in the order of the judge's first look: a later one has to be better by the gate's ``margin``.
    """
    believed = torch.lerp(first, last, config.believed_gain).mean(dim=(0, 2)).tolist()
    chosen = 0
    for track, value in enumerate(believed):
        if value - believed[chosen] > config.margin * abs(believed[chosen]):
            chosen = track
    return chosen


def _portfolio(
    behavior: GaussianPolicy,
    extracted: GaussianPolicy | None,
    strangers: Strangers | None,
    config: UniO4Config,
) -> tuple[GaussianPolicy, list[str]]:
    """All that is judged, with narrower noise, and the names of its members."""
    parts, names = [behavior], config.behavior.member_weightings()
    if extracted is not None:
        parts.append(extracted)
        names = names + config.extraction().member_weightings()
    if strangers is not None:
        parts.append(strangers.policies)
        names = names + strangers.names
    return stack_policies([part.narrowed(config.improve.std_scale) for part in parts]), names


def _extract(
    data: OfflineData, world: World, config: UniO4Config, reporter: Reporter, journal: Journal
) -> tuple[GaussianPolicy | None, list[LogEntry]]:
    """Policies cloned by the critics' advantages, from the journal if they were finished before."""
    if config.extract.members == 0:
        return None, []
    settings = config.extraction()
    seed = stream_seed(config, "improve-policy") + EXTRACTION_STREAM
    resumed: Mapping[str, Any] | None = journal.resumed
    if resumed is not None and resumed["training"] in (NAME, "improve-policy"):
        policy = GaussianPolicy(_spec(data, config)).to(data.observations.device)
        policy.load_state_dict(resumed["carried"]["extracted"])
        return policy.requires_grad_(False), [LogEntry(**entry) for entry in resumed["carried"]["log"]]
    advantages = data_advantages(world.critics, data)
    trainer = CloningTrainer(data, settings, seed=seed, advantages=advantages)
    name = "extract-policies"
    log = train(trainer, settings.steps, settings.evaluate_every, name, reporter, journal, shown=SHOWN[name])
    return trainer.result().requires_grad_(False), log


def _spec(data: OfflineData, config: UniO4Config) -> PolicySpec:
    settings = config.extraction()
    return PolicySpec(
        settings.members,
        data.observation_dim,
        data.action_dim,
        settings.hidden,
        settings.activation,
        settings.std,
    )


def _trust(
    data: OfflineData,
    behavior: GaussianPolicy,
    world: World,
    config: UniO4Config,
    *,
    time_limit: int | None,
    seed: int,
) -> Trust | None:
    """Whether the models may judge; None where nobody asks, or nothing recorded can tell.

    Recorded returns are plain sums of what sampled actions earned from an episode's start, whatever the
    estimate of the gate is; so are these.
    """
    share = config.improve.trust
    if share is None:
        return None
    plain = {"estimator": "return", "start_states": "initial", "discount": 1.0}
    settings = config.improve.model_copy(update=plain)
    judge = PolicyEvaluator(
        data,
        world.judging,
        world.critics,
        settings,
        time_limit=time_limit,
        ways=("sampled",),
        bootstrap=False,
    )
    starts = SELECTION_FACTOR * settings.starts
    sampled = judge.estimate(behavior, seed=seed, starts=starts)[0]
    names = config.behavior.member_weightings()
    return judge_models(data, names, sampled.mean(dim=1), share, horizon=judge.horizon)


def _safest(names: list[str], data: OfflineData, returns: Tensor) -> int:
    """The clone to deliver where nothing may be judged, by what mean actions return in the models [E].

    Weights leave fewer rows to learn from. If episodes differ much that is worth it: a plain clone mixes all
    of them. If they hardly differ there is little to win, and plain clones are surer. Between clones of one
    kind even models whose level is wrong tell better from worse.
    """
    weighted = next((name for name in names if name != UNIFORM), UNIFORM)
    promising = weighted != UNIFORM and promised_gain(data, weighted) > PROMISED_GAIN
    kind = weighted if promising or UNIFORM not in names else UNIFORM
    alike = [member for member, name in enumerate(names) if name == kind]
    return max(alike, key=returns.tolist().__getitem__)


def _acts(ways: tuple[str, ...], estimates: Tensor) -> str:
    """The way of acting to deliver, by estimates [W, S]: the mean action unless sampled ones are far better.

    Models that fall a little too early or too late favor one of the two by some percent.
    """
    if len(ways) == 1:
        return ways[0]
    mean, sampled = (float(estimates[ways.index(way)].mean()) for way in ("mean", "sampled"))
    return "sampled" if sampled - mean > SAMPLED_GAIN * abs(mean) else "mean"
