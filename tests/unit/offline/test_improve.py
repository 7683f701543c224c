"""Improvement: the clipped objective by finite differences, and what may change an accepted policy."""

import copy
from typing import Any

import pytest
import torch
from offline_worlds import (
    FunctionCritics,
    PointMassModel,
    linear_policies,
    make_data,
    parameters_of,
    point_mass_transitions,
    same_bits,
    zero_critics,
)
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec, copy_members, stack_policies
from unio4_lib.offline.advantages import CriticAdvantages, Minibatch
from unio4_lib.offline.improve import ImproveTrainer, clip_gradients, clipped_objective
from unio4_lib.offline.ope import PolicyEvaluator

E, B, CLIP = 3, 16, 0.2
DATA = make_data(point_mass_transitions(episodes=20))


def make_config(**values: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "steps": 100,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "evaluate_every": 10,
        "horizon": 20,
        "starts": 16,
        "start_states": "dataset",
        "discount": 1.0,
        "model_noise": True,
        "clip": 0.25,
        "patience": 6,
        "rollouts": 8,
        "rollout_steps": 10,
        "value_hidden": (8,),
    }
    return ImproveConfig(**{**settings, **values})


def small_policy(members: int = E, seed: int = 0) -> GaussianPolicy:
    spec = PolicySpec(members, 2, 2, (5,), "tanh", "state")
    return GaussianPolicy(spec, generator=torch.Generator().manual_seed(seed)).double()


def test_the_entropy_bonus_is_subtracted_from_the_loss() -> None:
    policy = small_policy()
    batch = minibatch_of(policy, 0.0)
    plain, bonus = (clipped_objective(policy, batch, CLIP, entropy)[0] for entropy in (0.0, 0.3))
    normal = torch.distributions.Normal(*_mean_and_std(policy, batch))
    torch.testing.assert_close(plain - bonus, 0.3 * normal.entropy().sum(-1).mean(dim=1).sum())


def _mean_and_std(policy: GaussianPolicy, batch: Minibatch) -> tuple[Tensor, Tensor]:
    gaussian = policy.distribution(batch.observations)
    return gaussian.mean, gaussian.log_std.exp()


def minibatch_of(policy: GaussianPolicy, shift: float, seed: int = 1) -> Minibatch:
    """Actions of the policy, whose anchor had log densities lower by ``shift``: the ratio is exp(shift)."""
    g = torch.Generator().manual_seed(seed)
    observations = torch.randn(E, B, 2, generator=g, dtype=torch.float64)
    with torch.no_grad():
        gaussian = policy.distribution(observations)
        actions = gaussian.sample(torch.randn(E, B, 2, generator=g, dtype=torch.float64))
        log_probs = gaussian.log_prob(actions) - shift
    return Minibatch(observations, actions, log_probs, torch.randn(E, B, generator=g, dtype=torch.float64))


def finite_differences(policy: GaussianPolicy, batch: Minibatch, entropy: float) -> list[Tensor]:
    """Central differences of the objective, number by number."""
    eps, result = 1e-6, []
    with torch.no_grad():
        for parameter in policy.parameters():
            gradient = torch.empty_like(parameter)
            flat, out = parameter.view(-1), gradient.view(-1)
            for i in range(len(flat)):
                kept, sides = float(flat[i]), []
                for side in (eps, -eps):
                    flat[i] = kept + side
                    sides.append(float(clipped_objective(policy, batch, CLIP, entropy)[0]))
                flat[i] = kept
                out[i] = (sides[0] - sides[1]) / (2 * eps)
            result.append(gradient)
    return result


@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5, -0.5])
def test_the_objectives_gradient_by_finite_differences(shift: float, entropy: float) -> None:
    """Ratios at 1, inside the clip, and beyond it on both sides; advantages of both signs."""
    policy = small_policy()
    batch = minibatch_of(policy, shift)
    loss, metrics = clipped_objective(policy, batch, CLIP, entropy)
    loss.backward()
    for parameter, expected in zip(
        policy.parameters(), finite_differences(policy, batch, entropy), strict=True
    ):
        # Central differences of 1e-6 in float64 are good to about 1e-9 here.
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-7)
    beyond = abs(shift) > CLIP
    assert metrics["improve/clip_fraction"].tolist() == [float(beyond)] * E
    expected_kl = torch.full((E,), float(torch.tensor(shift).exp() - 1 - shift), dtype=torch.float64)
    torch.testing.assert_close(metrics["improve/kl"], expected_kl, atol=1e-6, rtol=1e-5)


BOTH_SIDES = [(0.5, 1, False), (0.5, -1, True), (-0.5, 1, True), (-0.5, -1, False)]


@pytest.mark.parametrize(("shift", "sign", "pulls"), BOTH_SIDES)
def test_clipping_stops_only_what_was_already_gained(shift: float, sign: int, pulls: bool) -> None:
    policy = small_policy()
    batch = minibatch_of(policy, shift)._replace(advantages=torch.full((E, B), float(sign)).double())
    loss, _ = clipped_objective(policy, batch, CLIP, 0.0)
    loss.backward()
    moved = any(float(p.grad.abs().max()) > 0 for p in policy.parameters() if p.grad is not None)
    assert moved == pulls
    ratio = torch.tensor(shift).exp().item()
    expected = min(ratio * sign, max(min(ratio, 1 + CLIP), 1 - CLIP) * sign)
    assert float(loss.detach()) == pytest.approx(-E * expected, rel=1e-6)


def test_at_the_anchor_the_ratio_is_one_and_the_gradient_that_of_the_policy_gradient() -> None:
    policy = small_policy()
    batch = minibatch_of(policy, 0.0)
    loss, metrics = clipped_objective(policy, batch, CLIP, 0.0)
    torch.testing.assert_close(loss, -batch.advantages.mean(dim=1).sum())
    torch.testing.assert_close(metrics["improve/kl"], torch.zeros(E).double(), atol=1e-12, rtol=0)
    assert metrics["improve/clip_fraction"].max() == 0
    clipped = torch.autograd.grad(loss, list(policy.parameters()))
    log_probs = policy.distribution(batch.observations).log_prob(batch.actions)
    plain = -(log_probs * batch.advantages).mean(dim=1).sum()
    for left, right in zip(clipped, torch.autograd.grad(plain, list(policy.parameters())), strict=True):
        torch.testing.assert_close(left, right)


def test_gradients_are_clipped_as_those_of_separate_networks() -> None:
    policy = small_policy()
    batch = minibatch_of(policy, 0.0)
    sizes = torch.tensor([[0.01], [1.0], [30.0]]).double()  # one member below the limit, two above
    loss, _ = clipped_objective(policy, batch._replace(advantages=sizes * batch.advantages), CLIP, 0.0)
    loss.backward()
    raw = [parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None]
    norms = []
    clip_gradients(policy, 0.5)
    for member in range(E):
        alone = [torch.zeros_like(gradient[member], requires_grad=True) for gradient in raw]
        for parameter, gradient in zip(alone, raw, strict=True):
            parameter.grad = gradient[member].clone()
        norms.append(float(torch.nn.utils.clip_grad_norm_(alone, 0.5)))
        for parameter, own in zip(policy.parameters(), alone, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad[member], own.grad)
    assert norms[0] < 0.5 < norms[1] < norms[2]


class ListedEstimates:
    """Estimates by decree: element k of ``gains`` is what candidates win at check k, for each member."""

    models = 1

    def calibrate(self, behavior: GaussianPolicy, *, seed: int, starts: int) -> None:
        """Nothing is known of these models."""

    def __init__(self, gains: list[list[float]]) -> None:
        self.gains, self.seeds, self.starts = gains, [], []  # type: ignore[var-annotated]

    def estimate(self, policies: GaussianPolicy, *, seed: int, starts: int | None = None) -> Tensor:
        self.seeds.append(seed)
        self.starts.append(starts)
        base = torch.randn(16, generator=torch.Generator().manual_seed(0)).expand(policies.spec.members, 16)
        if starts is not None:
            return base + torch.tensor(self.gains[-1])[:, None]
        gain = torch.tensor(self.gains[len(self.seeds) - 1])
        # A little noise: differences without any would have no standard error.
        return base + torch.cat([gain, torch.zeros_like(gain)])[:, None] * torch.linspace(0.9, 1.1, 16)


class ConstantSource:
    """Always pushes actions up; remembers what it was told."""

    def __init__(self) -> None:
        self.renewed: list[list[bool]] = []
        self.generator = torch.Generator().manual_seed(0)

    def next(self, candidate: GaussianPolicy) -> Minibatch:
        members = candidate.spec.members
        observations = torch.randn(members, 32, 1, generator=self.generator)
        with torch.no_grad():
            gaussian = candidate.distribution(observations)
            noise = torch.randn(gaussian.mean.shape, generator=self.generator)
            actions = gaussian.sample(noise)
            return Minibatch(observations, actions, gaussian.log_prob(actions), noise[..., 0])

    def renew(self, members: Tensor, candidate: GaussianPolicy) -> None:
        self.renewed.append(members.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def decreed(gains: list[list[float]], **values: Any) -> tuple[ImproveTrainer, Any, Any]:
    evaluator: Any = ListedEstimates(gains)
    source: Any = ConstantSource()
    behavior = linear_policies([0.5] * len(gains[0]))
    return ImproveTrainer(behavior, source, evaluator, make_config(**values), seed=40), evaluator, source


def test_a_closed_gate_keeps_the_behavior_policy_to_the_bit() -> None:
    trainer, _, _ = decreed([[-1.0, 0.0]] * 4, patience=100)
    before = parameters_of(trainer.accepted)
    for _ in range(4):
        for _ in range(5):
            trainer.step()
        trainer.evaluate()
    assert same_bits(parameters_of(trainer.accepted), before)
    assert not same_bits(parameters_of(trainer.candidate), before)
    assert not any(entry.accepted for entry in trainer.log)


def test_an_open_gate_takes_each_candidate_as_it_is() -> None:
    trainer, _, source = decreed([[1.0, 1.0]] * 3)
    for _ in range(3):
        trainer.step()
        assert not same_bits(parameters_of(trainer.accepted), parameters_of(trainer.candidate))
        trainer.evaluate()
        assert same_bits(parameters_of(trainer.accepted), parameters_of(trainer.candidate))
    assert source.renewed == [[True, True]] * 3
    trainer.step()  # the accepted policy is a copy, not the same tensors
    assert not same_bits(parameters_of(trainer.accepted), parameters_of(trainer.candidate))


def test_what_is_delivered_is_the_accepted_policy_and_not_the_last_iterate() -> None:
    """Defect 5 of the published code. Member 1 alone passes, at the first check alone."""
    trainer, _, _ = decreed([[-1.0, 1.0], [-1.0, -1.0]], patience=100)
    behavior = parameters_of(trainer.accepted)
    trainer.step()
    passed = parameters_of(trainer.candidate)
    trainer.evaluate()
    trainer.step()
    trainer.evaluate()
    for old, new, accepted in zip(behavior, passed, trainer.accepted.parameters(), strict=True):
        assert torch.equal(accepted[0], old[0])
        assert torch.equal(accepted[1], new[1])
    assert [(entry.step, entry.member, entry.accepted) for entry in trainer.log] == [
        (1, 0, False), (1, 1, True), (2, 0, False), (2, 1, False)
    ]  # fmt: skip


def test_after_patience_refusals_a_candidate_is_put_back_alone() -> None:
    # Member 0 is refused three times in a row; member 1 passes in between, so its count starts again.
    trainer, _, source = decreed([[-1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], patience=3)
    for check in range(3):
        for _ in range(3):
            trainer.step()
        before = parameters_of(trainer.candidate)
        moments = [copy.deepcopy(trainer.optimizer.state[p]) for p in trainer.candidate.parameters()]
        trainer.evaluate()
        if check < 2:
            assert same_bits(parameters_of(trainer.candidate), before)
    assert trainer.refusals.tolist() == [0, 1]
    assert source.renewed == [[False, True], [True, False]]
    for candidate, accepted, old in zip(
        trainer.candidate.parameters(), trainer.accepted.parameters(), before, strict=True
    ):
        assert torch.equal(candidate[0], accepted[0])
        assert torch.equal(candidate[1], old[1])
    assert not same_bits(before, parameters_of(trainer.candidate))
    for parameter, old in zip(trainer.candidate.parameters(), moments, strict=True):
        new = trainer.optimizer.state[parameter]
        assert new["exp_avg"][0].abs().max() == 0
        assert torch.equal(new["exp_avg"][1], old["exp_avg"][1])
        assert old["exp_avg"][0].abs().max() > 0
        # The second moment stays: the members share Adam's step count, so zeroing it would enlarge steps.
        assert torch.equal(new["exp_avg_sq"], old["exp_avg_sq"])


def test_refused_candidates_go_on_from_where_they_are() -> None:
    trainer, _, _ = decreed([[-1.0]] * 2, patience=3)
    trainer.step()
    before = parameters_of(trainer.candidate)
    trainer.evaluate()
    assert same_bits(parameters_of(trainer.candidate), before)


def test_every_check_and_the_choice_have_draws_of_their_own() -> None:
    """Defect 3 of the published code: nothing is compared with a score of an earlier draw."""
    trainer, evaluator, _ = decreed([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 3.0, 2.0]])
    for _ in range(2):
        trainer.step()
        trainer.evaluate()
    chosen, estimates = trainer.choose()
    assert chosen == 1  # by estimates alone: there is no simulator to ask
    assert estimates.argmax() == 1
    assert len(set(evaluator.seeds)) == 3
    assert evaluator.starts == [None, None, 4 * 16]


@pytest.mark.parametrize(("last", "chosen"), [([0.0, 0.0, 0.006], 1), ([0.0, 0.0, 9.0], 2)])
def test_among_equals_proven_gains_choose_and_a_clear_winner_wins(last: list[float], chosen: int) -> None:
    """Member 1 was replaced twice, member 0 once; estimates of the choice come last."""
    trainer, evaluator, _ = decreed([[1.0, 1.0, -1.0], [-1.0, 1.0, -1.0], last])
    for _ in range(2):
        trainer.step()
        trainer.evaluate()
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(3)) * 0.01
    plain = evaluator.estimate
    evaluator.estimate = lambda *args, **kwargs: plain(*args, **kwargs) + noise  # type: ignore[method-assign]
    found, estimates = trainer.choose()
    assert found == chosen
    assert int(estimates.argmax()) == 2  # the highest is not always surely the highest


def test_the_step_size_falls_to_zero_and_the_clip_stays() -> None:
    """Defect 4 of the published code: its clip decays until step 200 and then stops."""
    trainer, _, _ = decreed([[0.0]], steps=20, evaluate_every=10)
    rates = []
    for _ in range(20):
        trainer.step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3 * (1 - k / 20) for k in range(20)])
    assert trainer.config.clip == 0.25


def constant_critics(value: float) -> Any:
    return FunctionCritics(
        lambda s, a: torch.full(s.shape[:-1], value), lambda s: torch.full(s.shape[:-1], value)
    )


@pytest.mark.parametrize("value", [0.0, 300.0])
def test_without_advantages_the_policy_stays_where_it_is(value: float) -> None:
    critics, behavior = constant_critics(value), linear_policies([0.5, 1.0])
    config = make_config()
    source = CriticAdvantages(DATA, critics, behavior, config, seed=0)
    evaluator: Any = ListedEstimates([[0.0, 0.0]])
    trainer = ImproveTrainer(behavior, source, evaluator, config, seed=0)
    for _ in range(20):
        trainer.step()
    assert same_bits(parameters_of(trainer.candidate), parameters_of(behavior))


def test_stacking_and_copying_keep_members_apart() -> None:
    first, second = linear_policies([0.1, 0.2]), linear_policies([0.3])
    stacked = stack_policies([first, second])
    assert stacked.spec.members == 3
    states = torch.linspace(-1, 1, 5)[:, None]
    expected = torch.cat([policy.distribution(states).mean for policy in (first, second)])
    torch.testing.assert_close(stacked.distribution(states).mean, expected)
    target = linear_policies([7.0, 8.0])
    copy_members(first, target, torch.tensor([False, True]))
    torch.testing.assert_close(
        target.distribution(states).mean, linear_policies([7.0, 0.2]).distribution(states).mean
    )


def test_equal_candidates_never_pass() -> None:
    """Before any step the candidate is the accepted policy: the paired difference is exactly zero."""
    model: Any = PointMassModel(noise=0.3)
    for rule in ("mean", "lower-bound", "margin"):
        config = make_config(rule=rule, margin=0.0)
        evaluator = PolicyEvaluator(DATA, model, zero_critics(), config, time_limit=20)
        source: Any = ConstantSource()
        trainer = ImproveTrainer(linear_policies([0.5, 1.0]), source, evaluator, config, seed=0)
        trainer.evaluate()
        assert [(entry.accepted, entry.difference) for entry in trainer.log] == [(False, 0.0)] * 2
