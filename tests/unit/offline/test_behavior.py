"""Cloning and its diversity term, against slow transcriptions of the formulas."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import following, make_data, make_transitions, parameters_of

from unio4_lib.learning.cloning import CloningTrainer, cloning_loss, overlap, paper_disagreement
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.learning.row_weights import row_weights
from unio4_lib.learning.snapshots import BestMembers
from unio4_lib.nets.policy import Gaussian
from unio4_lib.settings.model import BehaviorConfig, CloningConfig

E, B, A = 4, 5, 3


def random_gaussian(*, grad: bool = False, members: int = E) -> Gaussian:
    g = torch.Generator().manual_seed(0)
    mean = torch.rand(members, B, A, generator=g, dtype=torch.float64) * 2 - 1
    log_std = -2 * torch.rand(members, B, A, generator=g, dtype=torch.float64)
    return Gaussian(mean.requires_grad_(grad), log_std.requires_grad_(grad))


def normal_density(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def test_overlap_is_the_integral_of_the_root_of_both_densities() -> None:
    gaussian = random_gaussian()
    mean, std = gaussian.mean.numpy(), gaussian.log_std.exp().numpy()
    x = np.linspace(-12.0, 12.0, 40_001)  # twelve times the largest std; the sum is exact to 1e-12
    expected = np.zeros(E)
    for i in range(E):
        for j in range(E):
            if i == j:
                continue
            for b in range(B):
                for a in range(A):
                    p = normal_density(x, mean[i, b, a], std[i, b, a])
                    q = normal_density(x, mean[j, b, a], std[j, b, a])
                    expected[i] += np.sqrt(p * q).sum() * (x[1] - x[0]) / ((E - 1) * B * A)
    np.testing.assert_allclose(overlap(gaussian).numpy(), expected, rtol=1e-9)


def test_overlap_is_one_for_equal_members_and_nearly_zero_for_distant_ones() -> None:
    mean, log_std = random_gaussian()
    equal = Gaussian(mean[:1].expand(E, B, A), log_std[:1].expand(E, B, A))
    torch.testing.assert_close(overlap(equal), torch.ones(E, dtype=torch.float64))
    apart = Gaussian(torch.arange(E).view(E, 1, 1).expand(E, B, A).double(), torch.full((E, B, A), -5.0))
    assert overlap(apart).max() < 1e-6
    assert torch.equal(overlap(random_gaussian(members=1)), torch.ones(1))


def test_paper_disagreement_is_the_published_formula() -> None:
    log_probs = torch.randn(E, B, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for i in range(E):
        for b in range(B):
            peer = max(float(log_probs[j, b]) for j in range(E) if j != i)
            expected = float(log_probs[i, b]) - peer
            assert float(paper_disagreement(log_probs)[i, b]) == pytest.approx(expected, abs=1e-12)
    assert torch.equal(paper_disagreement(log_probs[:1]), torch.zeros(1, B, dtype=torch.float64))


def test_the_published_term_sends_no_gradient_to_peers() -> None:
    log_probs = torch.randn(E, B, generator=torch.Generator().manual_seed(2)).requires_grad_()
    paper_disagreement(log_probs)[1].sum().backward()
    assert log_probs.grad is not None
    assert torch.equal(log_probs.grad, torch.eye(E)[1][:, None].expand(E, B))


@pytest.mark.parametrize(("diversity", "alpha"), [("none", 2.0), ("repulsion", 0.0), ("paper", 0.0)])
def test_without_a_term_the_loss_is_the_negative_log_likelihood(diversity: Any, alpha: float) -> None:
    gaussian = random_gaussian()
    actions = torch.rand(B, A, dtype=torch.float64)
    loss, metrics = cloning_loss(gaussian, actions, BehaviorConfig(diversity=diversity, alpha=alpha))
    expected = 0.0
    for i in range(E):
        normal = torch.distributions.Normal(gaussian.mean[i], gaussian.log_std[i].exp())
        likelihood = normal.log_prob(actions).sum(-1).mean()
        assert float(metrics["behavior/log_likelihood"][i]) == pytest.approx(float(likelihood))
        expected -= float(likelihood)
    assert float(loss) == pytest.approx(expected)


def test_repulsion_adds_the_overlap_and_pushes_means_apart() -> None:
    gaussian, actions = random_gaussian(grad=True), torch.zeros(B, A, dtype=torch.float64)
    plain, _ = cloning_loss(gaussian, actions, BehaviorConfig(diversity="none"))
    loss, _ = cloning_loss(gaussian, actions, BehaviorConfig(diversity="repulsion", alpha=0.3))
    torch.testing.assert_close(loss - plain, 0.3 * overlap(gaussian).sum())
    (step,) = torch.autograd.grad(loss - plain, gaussian.mean)
    moved = Gaussian(gaussian.mean - 0.1 * step, gaussian.log_std)  # down the gradient
    assert overlap(moved).mean() < overlap(gaussian).mean()


def test_the_published_term_only_scales_the_cloning_gradient() -> None:
    """Gradient of the whole loss = (1 + alpha) times that of the likelihood, exactly."""
    actions = torch.rand(B, A, dtype=torch.float64)
    gradients = []
    for diversity in ("none", "paper"):
        gaussian = random_gaussian(grad=True)
        loss, _ = cloning_loss(gaussian, actions, BehaviorConfig(diversity=diversity, alpha=0.7))
        gradients.append(torch.autograd.grad(loss, [*gaussian]))
    for plain, scaled in zip(*gradients, strict=True):
        torch.testing.assert_close(scaled, 1.7 * plain)


def two_mode_data() -> OfflineData:
    """Actions near -0.5 or 0.5 at random, whatever the state: no Gaussian can have both modes tightly."""
    g = np.random.default_rng(0)
    rows = 1200
    observations = g.normal(size=(rows, 2))
    actions = np.where(g.random(rows) < 0.5, 0.5, -0.5)[:, None] + g.normal(0, 0.1, size=(rows, 1))
    ends = np.arange(rows) % 20 == 19
    zeros = np.zeros(rows)
    return make_data(
        make_transitions(observations, np.clip(actions, -1, 1), zeros, following(observations), zeros, ends)
    )


def train(data: OfflineData, steps: int, **values: Any) -> CloningTrainer:
    settings: dict[str, Any] = {
        "hidden": (16,),
        "batch_size": 64,
        "activation": "tanh",
        "learning_rate": 1e-3,
        "holdout_fraction": 0.2,
        "members": 3,
        "precision": "float32",  # where weights are compared digit by digit
    }
    trainer = CloningTrainer(data, BehaviorConfig(**{**settings, **values}), seed=0)
    for _ in range(steps):
        trainer.step()
    return trainer


def test_under_adam_the_published_term_changes_nothing() -> None:
    """Defect 1 of the published code: its alpha is without effect.

    Adam's update does not depend on the gradient's scale but for its epsilon of 1e-8: parameters that
    traveled up to 0.2 (200 steps of 1e-3) agree to 1e-5.
    """
    data = two_mode_data()
    reference = train(data, 200, alpha=0.0, diversity="paper")
    for alpha in (0.1, 5.0):
        paper = train(data, 200, alpha=alpha, diversity="paper")
        for a, b in zip(reference.policy.parameters(), paper.policy.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    repulsion = train(data, 200, alpha=5.0, diversity="repulsion")
    differences = [
        float((a - b).detach().abs().max())
        for a, b in zip(reference.policy.parameters(), repulsion.policy.parameters(), strict=True)
    ]
    assert max(differences) > 1e-2  # a term with a gradient is seen by the same comparison


def test_repulsion_lowers_the_overlap_more_with_more_weight() -> None:
    """Members part, the more the larger alpha, and never pay more likelihood than the term is worth."""
    data = two_mode_data()
    alphas, overlaps, likelihoods, spreads = (0.0, 0.3, 1.0, 2.0), [], [], []
    for alpha in alphas:
        figures = train(data, 600, diversity="repulsion", alpha=alpha, learning_rate=3e-3).evaluate()
        overlaps.append(float(figures["behavior/overlap"]))
        likelihoods.append(float(figures["behavior/holdout_log_likelihood"].mean()))
        spreads.append(float(figures["behavior/action_spread"]))
    assert overlaps[0] > 0.98  # without the term all members find the same Gaussian
    assert overlaps == sorted(overlaps, reverse=True)
    assert spreads == sorted(spreads)
    assert overlaps[-1] < 0.9  # 0.86 seen
    assert spreads[-1] > 0.2  # 0.30 seen, 0.015 without
    for alpha, overlapping, likelihood in zip(alphas, overlaps, likelihoods, strict=True):
        # At the minimum of the loss the price is at most alpha times the gain; 0.02 for the held-out rows.
        assert likelihoods[0] - likelihood < alpha * (overlaps[0] - overlapping) + 0.02


def test_cloning_finds_the_likelihood_of_a_linear_gaussian_behavior() -> None:
    """a = 0.4 x + 0.2 noise: no policy can do better than -0.5 log(2 pi e 0.04) on fresh rows."""
    g = np.random.default_rng(0)
    x = g.normal(size=(2000, 1)).clip(-1.5, 1.5)
    actions = np.clip(0.4 * x + 0.2 * g.normal(size=(2000, 1)), -1, 1)
    ends = np.arange(2000) % 20 == 19
    data = make_data(make_transitions(x, actions, x[:, 0], following(x), np.zeros(2000), ends))
    trainer = train(data, 500, learning_rate=5e-3, diversity="none")
    figures = trainer.evaluate()
    best = -0.5 * math.log(2 * math.pi * math.e * 0.04)
    # 400 held-out rows: the standard error of the mean log-likelihood is 0.035.
    assert figures["behavior/holdout_log_likelihood"].numpy() == pytest.approx(best, abs=0.12)
    inputs = torch.tensor([[-1.0], [0.0], [1.0]])
    means = trainer.policy.distribution(inputs).mean.detach()[..., 0]
    torch.testing.assert_close(means, torch.tensor([-0.4, 0.0, 0.4]).expand(3, 3), atol=0.08, rtol=0)


def test_holdout_episodes_are_never_trained_on() -> None:
    trainer = train(two_mode_data(), 0)
    held = {tuple(row) for row in trainer.holdout.observations.tolist()}
    trained = {tuple(row) for row in trainer.data.observations[trainer.sampler.rows].tolist()}
    assert len(held) == 240
    assert not held & trained
    assert len(held) + len(trained) == 1200


def test_each_member_learns_from_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train(two_mode_data(), 0)
    seen: list[torch.Tensor] = []
    original = trainer.policy.distribution
    monkeypatch.setattr(trainer.policy, "distribution", lambda x: seen.append(x) or original(x))
    trainer.step()
    assert seen[0].shape == (3, 64, 2)
    assert not torch.equal(seen[0][0], seen[0][1])


def good_and_bad_data(good: float = 0.5, episodes: int = 60, seed: int = 0) -> OfflineData:
    """Episodes of actions near 0.5, which are paid for with 1 a row, and of actions near -0.5 for nothing."""
    g = np.random.default_rng(seed)
    rewards = np.repeat(np.arange(episodes) < good * episodes, 20)
    rows = len(rewards)
    observations = g.normal(size=(rows, 2))
    actions = np.where(rewards, 0.5, -0.5)[:, None] + g.normal(0, 0.1, size=(rows, 1))
    ends = np.arange(rows) % 20 == 19
    rows_of = make_transitions(observations, actions, rewards, following(observations), 0 * ends, ends)
    return make_data(rows_of)


def mean_actions(trainer: CloningTrainer) -> list[float]:
    """Of each member, over all states."""
    with torch.no_grad():
        return trainer.policy.distribution(trainer.data.observations).mean.mean(dim=(1, 2)).tolist()


def test_members_go_where_their_weights_are() -> None:
    """Uniform between the modes, return-weighted to the good one; advantages that prefer the bad one win."""
    data = good_and_bad_data()
    settings = CloningConfig(
        members=3, weightings=("uniform", "return:0.5", "advantage:4"), hidden=(16,), batch_size=64,
        activation="tanh", learning_rate=5e-3, steps=10_000, holdout_fraction=0.2,
    )  # fmt: skip
    trainer = CloningTrainer(data, settings, seed=0, advantages=-data.environment_rewards)
    for _ in range(400):
        trainer.step()
    plain, returns, advantages = mean_actions(trainer)
    assert abs(plain) < 0.12
    assert returns > 0.42
    assert advantages < -0.42


def test_the_hold_out_is_judged_under_the_weights_of_each_member() -> None:
    data = good_and_bad_data()
    trainer = train(data, 40, members=2, weightings=("uniform", "return:0.5"))
    held = trainer.data.split_episodes(0.2, 0)[1]
    figures = trainer.evaluate()
    for member, name in enumerate(("uniform", "return:0.5")):
        weights = row_weights(data, name)[held].numpy()
        gaussian = trainer.policy.distribution(data.observations[held])
        each = gaussian.log_prob(data.actions[held])[member].detach().numpy()
        expected = float((weights * each).sum() / weights.sum())
        found = float(figures["behavior/holdout_log_likelihood"][member])
        assert found == pytest.approx(expected, rel=1e-4)
    assert torch.equal(trainer.best.losses, -figures["behavior/holdout_log_likelihood"])


def test_weights_beyond_the_smallest_float_still_judge_a_hold_out() -> None:
    """One good episode in forty, all of them in the training rows: every held-out weight is exp(-60) or so.

    As 32-bit numbers they are zeros, the likelihood is no number, and the untrained weights are delivered.
    """
    data = good_and_bad_data(good=0.025, episodes=400)
    trainer = train(data, 60, members=1, weightings=("return:0.05",), holdout_fraction=0.01)
    held = data.environment_rewards[data.split_episodes(0.01, 0)[1]]
    assert held.sum() == 0
    likelihood = trainer.evaluate()["behavior/holdout_log_likelihood"]
    assert torch.isfinite(likelihood).all()


def test_each_member_keeps_its_own_best_weights() -> None:
    policy = train(two_mode_data(), 0).policy
    best = BestMembers(policy, patience=2)
    seen = []
    for number, losses in enumerate([[3.0, 3.0, 3.0], [2.0, 4.0, 2.9995], [2.5, 2.0, 9.0], [3.0, 3.0, 3.0]]):
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.fill_(float(number))
        best.update(torch.tensor(losses))
        seen.append((best.stale, best.exhausted()))
    assert seen == [(0, False), (0, False), (0, False), (1, False)]
    best.restore(policy)
    for best_of_all in parameters_of(policy):
        assert [float(member.unique()) for member in best_of_all] == [1.0, 2.0, 1.0]
    best.update(torch.tensor([1.9999, 2.0, 2.9995]))  # a gain below a thousandth is no news
    assert best.exhausted()
