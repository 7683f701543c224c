"""Where improvement gets its minibatches from: bookkeeping against loops."""

from typing import Any

import pytest
import torch
from offline_worlds import (
    FunctionCritics,
    PointMassModel,
    linear_policies,
    make_data,
    point_mass_transitions,
    reward,
    same_bits,
)
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.offline.advantages import (
    CriticAdvantages,
    ModelAdvantages,
    Rollouts,
    model_advantages,
    standardize,
)
from unio4_lib.offline.dynamics import Step

DATA = make_data(point_mass_transitions(episodes=10))


def make_config(**values: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "batch_size": 32,
        "anchor_every": 3,
        "rollouts": 6,
        "rollout_steps": 8,
        "value_hidden": (8,),
        "epochs": 2,
        "model_noise": True,
        "rollout_discount": 0.99,
    }
    return ImproveConfig(**{**settings, **values})


def by_definition(r: Rollouts, values: Tensor, next_values: Tensor, discount: float, lam: float) -> Tensor:
    """Sum over k of the product of (discount lam survival) up to k times delta_k, cut where rows restart."""
    result = torch.zeros_like(values)
    steps, members, rows = values.shape
    for e in range(members):
        for i in range(rows):
            for t in range(steps):
                weight = 1.0
                for k in range(t, steps):
                    alive = float(r.survival[k, e, i])
                    future = discount * alive * float(next_values[k, e, i])
                    delta = float(r.rewards[k, e, i]) + future - float(values[k, e, i])
                    result[t, e, i] += weight * delta
                    weight *= discount * lam * alive
                    if r.fresh[k, e, i]:
                        break
    return result


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_model_advantages_equal_their_definition(lam: float) -> None:
    g = torch.Generator().manual_seed(0)
    shape = (12, 2, 3)
    rewards, values, next_values = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    survival = torch.rand(shape, generator=g, dtype=torch.float64)
    survival[torch.rand(shape, generator=g) < 0.3] = 0.0  # certain ends among uncertain ones
    fresh = (torch.rand(shape, generator=g) < 0.3) | (survival == 0)
    fresh[-1] = True
    unused = torch.zeros(*shape, 1)
    rollouts = Rollouts(unused, unused, unused, rewards, unused, survival, fresh)
    torch.testing.assert_close(
        model_advantages(rollouts, values, next_values, 0.9, lam),
        by_definition(rollouts, values, next_values, 0.9, lam),
    )


def test_advantages_are_standardized_for_each_member() -> None:
    raw = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [100.0], [0.1]]
    )
    result = standardize(raw + 7)
    torch.testing.assert_close(result.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(dim=1, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert torch.equal(standardize(torch.full((2, 5), 3.0)), torch.zeros(2, 5))


def test_critic_minibatches_are_anchor_actions_on_dataset_states() -> None:
    def q(observations: Tensor, actions: Tensor) -> Tensor:
        return 3.0 * actions.clamp(-1, 1)[..., 0] + observations[..., 0]

    critics: Any = FunctionCritics(q, lambda s: s[..., 0].square())
    policy = linear_policies([0.5, 2.0])
    source = CriticAdvantages(DATA, critics, policy, make_config(), seed=0)
    batch = source.next(policy)
    assert batch.observations.shape == (2, 32, 1)
    assert torch.isin(batch.observations, DATA.observations).all()
    assert torch.equal(batch.observations[0], batch.observations[1])  # states are shared, as in the paper
    gaussian = policy.distribution(batch.observations)
    torch.testing.assert_close(batch.log_probs, gaussian.log_prob(batch.actions))
    z = (batch.actions - gaussian.mean) / gaussian.log_std.exp()
    assert z.std().item() == pytest.approx(1.0, abs=0.3)  # 64 draws
    assert not torch.equal(z[0], z[1])
    states = batch.observations[..., 0]
    raw = 3.0 * batch.actions[..., 0].clamp(-1, 1) + states - states.square()
    torch.testing.assert_close(batch.advantages, standardize(raw))


def anchor_gains(source: CriticAdvantages) -> list[float]:
    return (-source.anchor.net.output.weight[:, 0, 0]).tolist()


def test_the_anchor_is_renewed_on_time_or_for_the_members_that_the_gate_names() -> None:
    critics: Any = FunctionCritics(lambda s, a: a[..., 0], lambda s: s[..., 0])
    for every, expected in ((3, [0, 0, 0, 3, 3, 3, 6]), (None, [-1, -1, -1, -1, -1, -1, -1])):
        config = make_config(anchor_every=every)
        source = CriticAdvantages(DATA, critics, linear_policies([-1.0, -1.0]), config, seed=0)
        gains = []
        for number in range(7):
            source.next(linear_policies([float(number), float(number)]))
            gains.append(anchor_gains(source)[0])
        assert gains == expected
        before = anchor_gains(source)
        source.renew(torch.tensor([False, True]), linear_policies([9.0, 8.0]))
        assert anchor_gains(source) == [before[0], 8.0]
        assert not any(parameter.requires_grad for parameter in source.anchor.parameters())


@pytest.mark.parametrize(("members", "models", "per_model"), [(3, 2, 4), (2, 5, 1), (1, 3, 2)])
def test_rows_come_back_from_the_models_where_they_were(members: int, models: int, per_model: int) -> None:
    source = ModelAdvantages(DATA, model_of(models), members, make_config(), seed=0)
    rows = models * per_model
    tags = torch.stack(
        [
            torch.arange(float(members))[:, None].expand(members, rows),
            torch.arange(float(rows)).expand(members, rows),
        ],
        dim=-1,
    )
    there = source._to_models(tags)
    assert there.shape == (models, members * per_model, 2)
    for m in range(models):  # model m serves rows m * per_model ... of every member
        assert set(there[m, :, 1].tolist()) == set(range(m * per_model, (m + 1) * per_model))
        assert set(there[m, :, 0].tolist()) == set(range(members))
    assert torch.equal(source._from_models(there, members), tags)


def model_of(members: int, **values: Any) -> Any:
    return PointMassModel(members, **values)


def test_walks_belong_to_their_member_and_restart_in_the_data() -> None:
    """Each row follows from the one before by the true step of its own member's action."""
    policies = linear_policies([5.0, -5.0])
    config = make_config(rollouts=7, rollout_steps=30, model_noise=False)
    source = ModelAdvantages(DATA, model_of(2, wall=1.5), 2, config, seed=0)
    walk = source._walk(policies)
    assert walk.observations.shape == (30, 2, 8, 1)  # 7 rollouts over two models: 8
    step = model_of(1).step(walk.observations.view(1, -1, 1), walk.actions.view(1, -1, 1), None)
    torch.testing.assert_close(walk.next_observations.flatten(), step.next_observations.flatten())
    torch.testing.assert_close(walk.rewards.flatten() * source.scale, step.rewards.flatten())
    dead = walk.next_observations[..., 0].abs() >= 1.5
    assert torch.equal(walk.survival == 0, dead)
    assert torch.equal(walk.fresh[:-1], dead[:-1])
    assert walk.fresh[-1].all()
    assert dead[:, 1].sum() > 3  # the second member drives away from the origin
    going_on = ~walk.fresh[:-1]
    assert torch.equal(walk.observations[1:][going_on], walk.next_observations[:-1][going_on])
    assert torch.isin(walk.observations[1:][~going_on], DATA.observations).all()
    assert torch.isin(walk.observations[0], DATA.observations).all()
    by_policy = policies.distribution(walk.observations.transpose(0, 1).reshape(2, -1, 1))
    log_probs = by_policy.log_prob(walk.actions.transpose(0, 1).reshape(2, -1, 1))
    torch.testing.assert_close(walk.log_probs.transpose(0, 1).reshape(2, -1), log_probs)


def test_rewards_are_scaled_to_the_order_of_one() -> None:
    source = ModelAdvantages(DATA, model_of(2), 1, make_config(rollout_discount=0.9), seed=0)
    assert source.scale == pytest.approx(DATA.environment_rewards.std().item() / 0.1)


def test_a_round_gives_every_row_once_per_epoch_with_its_own_advantage() -> None:
    """Rows are tagged by their states; V is frozen so that advantages can be computed again."""
    policies = linear_policies([0.5, 1.0])
    config = make_config(rollouts=8, rollout_steps=8, batch_size=16, value_learning_rate=1e-12)
    source = ModelAdvantages(DATA, model_of(2), 2, config, seed=0)
    walks: list[Rollouts] = []
    walk = source._walk
    source._walk = lambda candidate: walks.append(walk(candidate)) or walks[-1]  # type: ignore
    batches = [source.next(policies) for _ in range(2 * 64 // 16)]
    assert not source.queue
    assert len(walks) == 2  # the first round only fits V
    rollouts = walks[1]
    with torch.no_grad():
        values, next_values = (
            source._predict(x) for x in (rollouts.observations, rollouts.next_observations)
        )
    advantages = by_definition(rollouts, values, next_values, config.rollout_discount, config.gae_lambda)
    for member in range(2):
        expected = standardize(advantages[:, member].reshape(1, -1))[0]
        wanted = sorted(zip(rollouts.actions[:, member].flatten().tolist(), expected.tolist(), strict=True))
        given = sorted(
            (a, v)
            for batch in batches
            for a, v in zip(
                batch.actions[member].flatten().tolist(), batch.advantages[member].tolist(), strict=True
            )
        )
        assert given[::2] == given[1::2]  # twice: two epochs
        torch.testing.assert_close(torch.tensor(given[::2]), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


def test_the_value_of_each_member_learns_its_own_returns() -> None:
    """Member 0 stays where it is, member 1 drives to the origin: from x = 1 their values differ."""
    policies = linear_policies([0.0, 3.0])
    config = make_config(
        rollouts=40,
        rollout_steps=40,
        rollout_discount=0.8,
        batch_size=200,
        epochs=5,
        value_learning_rate=5e-3,
        value_hidden=(32,),
        model_noise=False,
    )
    source = ModelAdvantages(DATA, model_of(2, noise=0.0), 2, config, seed=0)
    for _ in range(12):
        source._refill(policies)
        source.renew(torch.tensor([True, False]), policies)
        assert not source.queue  # what was queued belongs to policies that may be gone
    states = torch.tensor([-0.5, 0.0, 0.8]).view(1, 1, 3, 1).expand(1, 2, 3, 1)
    values = source._predict(states).detach()[0] * source.scale
    expected, x = torch.zeros(2, 3), states[0]
    for t in range(60):
        gaussian = policies.distribution(x)
        x = x + 0.25 * gaussian.mean
        expected += 0.8**t * reward(x[..., 0])
    # Rewards reach 5 = 1 / (1 - 0.8); sampled actions (std 0.1) cost up to 0.03 a step.
    torch.testing.assert_close(values, expected, atol=0.4, rtol=0)
    assert (expected[1] - expected[0])[2] > 1.5


def test_uncertain_survival_is_drawn() -> None:
    class Risky(PointMassModel):
        def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None) -> Step:
            step = super().step(observations, actions, noise)
            return step._replace(survival=torch.full_like(step.survival, 0.7))

    risky: Any = Risky()
    source = ModelAdvantages(DATA, risky, 2, make_config(rollouts=200, rollout_steps=6), seed=0)
    fresh = source._walk(linear_policies([1.0, 1.0])).fresh[:-1]
    assert fresh.float().mean().item() == pytest.approx(0.3, abs=0.04)  # 2000 draws: four standard errors


def test_equal_seeds_give_equal_minibatches() -> None:
    policies = linear_policies([0.5, 1.0])
    critics: Any = FunctionCritics(lambda s, a: a[..., 0], lambda s: s[..., 0])
    for kind in ("critic", "model"):
        drawn = []
        for seed in (0, 0, 1):
            source: Any = (
                CriticAdvantages(DATA, critics, policies, make_config(), seed=seed)
                if kind == "critic"
                else ModelAdvantages(DATA, model_of(2), 2, make_config(), seed=seed)
            )
            drawn.append([tuple(source.next(policies)) for _ in range(4)])
        assert same_bits(drawn[0], drawn[1])
        assert not same_bits(drawn[0], drawn[2])
