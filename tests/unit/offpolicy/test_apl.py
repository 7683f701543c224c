"""APL: nothing holds it back on the newest rows, two of five critics in targets, and its bases without."""

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import torch
from bandits import lag, made, run_of, same, some_rows, states
from offline_worlds import make_data, point_mass_transitions
from point_mass import PointMass

from unio4_lib.learning.evaluation import evaluate
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.offpolicy import OnlineTraining
from unio4_lib.methods import apl, apl_td3_bc, cql, td3_bc
from unio4_lib.methods.offpolicy import OffPolicy
from unio4_lib.methods.sac import Sac
from unio4_lib.nets.policy import Policy
from unio4_lib.settings.offpolicy import OffPolicyTuneConfig

TUNE = OffPolicyTuneConfig(env_steps=120, num_envs=4, warmup_steps=40, round_steps=40, evaluate_every=60)
BASES: list[tuple[OffPolicy, OffPolicy, dict[str, Any], dict[str, Any]]] = [
    (
        apl.ROOM,
        cql.ROOM,
        {"critics": 2, "target_critics": 2, "policy_follows": "min", "actions": 2},
        {"calibrated": False, "actions": 2},
    ),
    (apl_td3_bc.ROOM, td3_bc.ROOM, {}, {"imitation_online": 1.0}),
]


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def measure(policy: Policy, *, sampled: bool = False) -> Any:
    return evaluate(policy.act, PointMass, 2, seed=5)


def online(data: OfflineData, learner: Any) -> OnlineTraining:
    return OnlineTraining(learner, data, TUNE, PointMass, batch_size=24, seed=3)


@pytest.mark.parametrize(("room", "base", "neutral", "given"), BASES, ids=("cql", "td3_bc"))
def test_without_minibatches_of_newest_rows_it_is_its_base_bit_for_bit(
    room: OffPolicy, base: OffPolicy, neutral: dict[str, Any], given: dict[str, Any], data: OfflineData
) -> None:
    free = made(room, data, **neutral, recent_chance=0.0)
    bold = made(room, data, **neutral, recent_chance=0.5, recent_rows=20)
    learners = [free, made(base, data, **given), bold]
    for learner in learners:
        for step in range(4):
            learner.update(data.rows(torch.arange(16) * (step + 3)))
        list(online(data, learner).run(measure))
    found = [states(learner.q, learner.policy) for learner in learners]
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_newest_rows_have_no_gap(data: OfflineData) -> None:
    learner = made(apl.ROOM, data, actions=3, weight=2.0)
    batch = some_rows(data)
    recent = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    kept = learner.draws.get_state()
    plain = Sac.q_loss(learner, batch)
    gaps = cql.Cql.gap(learner, batch)
    learner.draws.set_state(kept)
    found = learner.q_loss(batch._replace(recent=recent))
    wanted = plain + 2.0 * (1.0 - recent) * gaps.sum(dim=0) / learner.q.scale.square()
    torch.testing.assert_close(found, wanted)
    assert (gaps.sum(dim=0).abs() > 1e-3).all()


def test_newest_rows_are_not_imitated(data: OfflineData) -> None:
    learner, batch = made(apl_td3_bc.ROOM, data), some_rows(data)
    learner.go_online()
    actions = learner.policy.distribution(batch.observations).mean[0].detach()
    recent = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    found = learner.policy_penalty(batch._replace(recent=recent), actions)
    wanted = (actions - batch.actions).square().mean(dim=-1) * (1.0 - recent)
    torch.testing.assert_close(found, wanted)


def test_targets_are_the_smaller_of_two_random_critics_and_the_policy_follows_all(data: OfflineData) -> None:
    learner, batch = made(apl.ROOM, data, critics=5), some_rows(data)
    lag(learner)
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    pairs = {pair: values[list(pair)].min(dim=0).values for pair in combinations(range(5), 2)}
    drawn = Counter[tuple[int, ...]]()
    for _ in range(600):
        found = learner.target_value(values)
        drawn.update(pair for pair, value in pairs.items() if torch.equal(value, found))
    assert len(drawn) == 10 and min(drawn.values()) > 30
    actions, log_probs = learner.sample(batch.observations)
    losses = learner.policy_loss(batch, actions, log_probs)
    promised = learner.q.values(batch.observations, actions).mean(dim=0)
    torch.testing.assert_close(losses, learner.temperature.value() * log_probs - promised)


def test_its_minibatches_are_whole_ones_of_newest_rows_at_the_rate_that_is_asked_for(
    data: OfflineData,
) -> None:
    learner = made(apl.ROOM, data, actions=2, recent_chance=0.5, recent_rows=60)
    training, shares, plain = online(data, learner), list[float](), learner.update

    def update(batch: Any) -> Any:
        shares.append(float(batch.recent.mean()))
        return plain(batch)

    learner.update = update
    list(training.run(measure))
    assert len(shares) == 80 and set(shares) == {0.0, 1.0}
    assert 25 < sum(shares) < 55
    other = online(data, made(apl.ROOM, data, actions=2))
    other.load_state_dict(training.state_dict())
    assert (other.replay.recent_chance, other.replay.recent_rows) == (0.5, 60)


def test_settings_are_those_of_the_code() -> None:
    config: Any = run_of(apl.ROOM)
    own = config.apl
    assert (own.critics, own.target_critics, own.recent_chance, own.recent_rows) == (5, 2, 0.5, 20_000)
    assert (own.weight, own.weight_online, own.calibrated, own.policy_learning_rate) == (
        5.0,
        5.0,
        False,
        1e-4,
    )
