"""Who makes candidates: the clipped objective by finite differences, the critics' steps, PPO in models."""

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
    true_returns,
)
from torch import Tensor

from unio4_lib.methods.unio4.advantages import CriticAdvantages, Minibatch
from unio4_lib.methods.unio4.learners import (
    CriticLearner,
    ModelLearner,
    clipped_objective,
    limit_norms,
    ppo_in_models,
)
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import ImproveConfig

E, B, CLIP = 3, 16, 0.2
DATA = make_data(point_mass_transitions(episodes=20))


def make_config(**values: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "steps": 20,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "evaluate_every": 10,
        "clip": 0.25,
        "rollouts": 16,
        "rollout_steps": 20,
        "episode_steps": 20,
        "value_hidden": (16,),
        "rollout_discount": 0.9,
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
    raw = torch.autograd.grad(loss, list(policy.parameters()))
    limited, norms = [gradient.clone() for gradient in raw], []
    limit_norms(limited, 0.5)
    for member in range(E):
        alone = [torch.zeros_like(gradient[member], requires_grad=True) for gradient in raw]
        for parameter, gradient in zip(alone, raw, strict=True):
            parameter.grad = gradient[member].clone()
        norms.append(float(torch.nn.utils.clip_grad_norm_(alone, 0.5)))
        for gradient, own in zip(limited, alone, strict=True):
            torch.testing.assert_close(gradient[member], own.grad)
    assert norms[0] < 0.5 < norms[1] < norms[2]


def right_critics(sign: float = 1.0) -> Any:
    """Actions to the right (or left) are worth more, the same in every state."""
    return FunctionCritics(lambda s, a: sign * a[..., 0], lambda s: torch.zeros(s.shape[:-1]))


def critic_learner(critics: Any, start: GaussianPolicy, **values: Any) -> CriticLearner:
    config = make_config(advantages="critic", **values)
    return CriticLearner(start, CriticAdvantages(DATA, critics, start, config, seed=0), config)


def means_of(policy: GaussianPolicy) -> Tensor:
    """Mean action [E] over the data's states."""
    with torch.no_grad():
        return policy.distribution(DATA.observations).mean.mean(dim=(1, 2))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_candidates_go_where_the_critics_see_more(sign: float) -> None:
    start = linear_policies([0.5, 0.0])
    learner = critic_learner(right_critics(sign), start)
    for _ in range(20):
        learner.step()
    moved = sign * (means_of(learner.candidates()) - means_of(start))
    assert (moved > 0.005).all()
    assert same_bits(parameters_of(start), parameters_of(linear_policies([0.5, 0.0])))


def test_the_step_size_falls_to_zero_and_the_clip_stays() -> None:
    """Defect 4 of the published code: its clip decays until step 200 and then stops."""
    learner = critic_learner(right_critics(), linear_policies([0.5]))
    rates = []
    for _ in range(20):
        rates.append(float(learner.group.rate()))
        learner.step()
    assert rates == pytest.approx([1e-3 * (1 - k / 20) for k in range(20)])
    assert learner.config.clip == 0.25


@pytest.mark.parametrize("value", [0.0, 300.0])
def test_without_advantages_the_policy_stays_where_it_is(value: float) -> None:
    critics: Any = FunctionCritics(
        lambda s, a: torch.full(s.shape[:-1], value), lambda s: torch.full(s.shape[:-1], value)
    )
    start = linear_policies([0.5, 1.0])
    learner = critic_learner(critics, start)
    for _ in range(20):
        learner.step()
    assert same_bits(parameters_of(learner.candidates()), parameters_of(start))


def test_ratios_refer_to_what_was_accepted_or_put_back() -> None:
    """With anchor_every unset nothing but the gate renews the anchor."""
    start = linear_policies([0.5, 0.5, 0.5])
    learner = critic_learner(right_critics(), start)
    for _ in range(3):
        learner.step()
    assert same_bits(parameters_of(learner.source.anchor), parameters_of(start))
    before = parameters_of(learner.candidates())
    group, kept = learner.group, learner.group.state_dict()
    learner.keep(torch.tensor([False, True, False]))
    learner.put_back(torch.tensor([True, False, False]), start)
    after = zip(
        parameters_of(learner.candidates()), parameters_of(learner.source.anchor), before,
        parameters_of(start), strict=True,
    )  # fmt: skip
    for candidate, anchor, old, begun in after:
        assert torch.equal(candidate[0], begun[0])
        assert torch.equal(candidate[1:], old[1:])
        assert torch.equal(anchor[0], begun[0])
        assert torch.equal(anchor[1], old[1])
        assert torch.equal(anchor[2], begun[2])
    for mean, old in zip(group.means, kept["means"], strict=True):
        assert mean[0].abs().max() == 0
        assert torch.equal(mean[1:], old[1:])
    # The second moment stays: the members share Adam's step count, so zeroing it would enlarge steps.
    assert all(map(torch.equal, group.squares, kept["squares"]))
    assert kept["means"][-1][0].abs().max() > 0


def model_learner(start: GaussianPolicy, seed: int = 0, **values: Any) -> ModelLearner:
    model: Any = PointMassModel(2)
    return ModelLearner(start, DATA, model, make_config(**values), seed=seed)


def test_ppo_in_the_true_model_raises_the_true_return() -> None:
    """From standing still and from driving away; 20 steps of the point mass are worth at most 20."""
    start = linear_policies([0.0, -0.3])
    learner = model_learner(start, learning_rate=5e-3, batch_size=128)
    before = true_returns(start, steps=20)
    for _ in range(20):
        learner.step()
    after = true_returns(learner.candidates(), steps=20)
    assert (after > before + torch.tensor([1.0, 10.0])).all()  # 1.8 and 19 seen
    assert same_bits(parameters_of(start), parameters_of(linear_policies([0.0, -0.3])))


def test_before_anything_moves_the_value_function_is_fitted() -> None:
    learner = model_learner(
        linear_policies([0.5]), learning_rate=1e-12, warmup_rounds=4, value_learning_rate=5e-3
    )
    ppo = learner.tracks[0]
    metrics = learner.step()
    assert ppo.env_steps == 5 * 16 * 20
    assert float(metrics["improve/explained_variance"][0]) > 0.5
    learner.step()
    assert ppo.env_steps == 6 * 16 * 20  # once


def test_a_candidate_is_the_running_average_of_the_newest_policies() -> None:
    learner = model_learner(linear_policies([0.5, 0.2]), averaging=0.6)
    expected = [parameters_of(track.policy) for track in learner.tracks]
    for _ in range(3):
        learner.step()
        for mean, track in zip(expected, learner.tracks, strict=True):
            newest = parameters_of(track.policy)
            mean[:] = [0.6 * old + 0.4 * new for old, new in zip(mean, newest, strict=True)]
    for found, means in zip(parameters_of(learner.candidates()), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(means))


def test_put_back_goes_back_and_leaves_the_others_alone() -> None:
    start = linear_policies([0.5, 0.2])
    learner = model_learner(start)
    for _ in range(2):
        learner.step()
    before = parameters_of(learner.candidates())
    assert not same_bits(before, parameters_of(start))
    learner.put_back(torch.tensor([True, False]), start)
    for now, old, begun in zip(
        parameters_of(learner.candidates()), before, parameters_of(start), strict=True
    ):
        assert torch.equal(now[0], begun[0])
        assert torch.equal(now[1], old[1])
    for newest, begun in zip(parameters_of(learner.tracks[0].policy), parameters_of(start), strict=True):
        assert torch.equal(newest[0], begun[0])
    assert learner.tracks[0].policy_group.taken == 0 < learner.tracks[1].policy_group.taken
    learner.step()  # and it learns on from there
    assert not torch.equal(parameters_of(learner.candidates())[0][0], parameters_of(start)[0][0])


def test_candidates_are_copies() -> None:
    """What the gate accepted must not move with the next step."""
    learner = model_learner(linear_policies([0.5]))
    learner.step()
    taken = learner.candidates()
    before = parameters_of(taken)
    learner.step()
    assert same_bits(parameters_of(taken), before)


def test_ppo_in_models_is_the_ppo_of_fine_tuning_with_the_settings_of_improvement() -> None:
    config = make_config(
        epochs=3, entropy=0.01, rollout_discount=0.97, gae_lambda=0.8, value_learning_rate=2e-3, clip=0.1,
        warmup_rounds=3,
    )  # fmt: skip
    found = ppo_in_models(config, 16)
    assert found.model_dump(include={
        "epochs", "entropy", "discount", "gae_lambda", "critic_learning_rate", "actor_learning_rate", "clip",
        "minibatch_size", "num_envs", "rollout_steps", "env_steps",
    }) == {
        "epochs": 3, "entropy": 0.01, "discount": 0.97, "gae_lambda": 0.8, "critic_learning_rate": 2e-3,
        "actor_learning_rate": 1e-3, "clip": 0.1, "minibatch_size": 64, "num_envs": 16, "rollout_steps": 20,
        "env_steps": 23 * 16 * 20,
    }  # fmt: skip


def test_the_noise_of_models_and_of_actions_are_drawn_apart() -> None:
    """From one stream, an action's noise would be the models' noise of another step."""
    track = model_learner(linear_policies([0.5])).tracks[0]
    sim: Any = track.collector.sim
    sim.reset(11)
    ours = torch.Generator().manual_seed(11)
    for _ in range(2):  # what a reset draws
        torch.randint(7, (sim.num_envs,), generator=ours)
    assert not torch.equal(torch.rand(9, generator=sim._generator), torch.rand(9, generator=ours))


def test_every_round_of_ppo_learns() -> None:
    """Environments are rounded up to whole models; the step size must not reach zero before the end."""
    model: Any = PointMassModel(5)
    config = make_config(steps=6, evaluate_every=6, rollouts=6, warmup_rounds=2)
    learner = ModelLearner(linear_policies([0.5]), DATA, model, config, seed=0)
    assert learner.tracks[0].collector.sim.num_envs == learner.tracks[0].config.num_envs == 10
    for _ in range(5):
        learner.step()
    assert learner.tracks[0].policy_group.learning_rate > 0.1 * 1e-3


@pytest.mark.parametrize("kind", ["critic", "model"])
def test_a_learner_taken_up_again_is_the_same(kind: str) -> None:
    start = linear_policies([0.5, 0.2])

    def make() -> Any:
        return critic_learner(right_critics(), start) if kind == "critic" else model_learner(start)

    whole, resumed = make(), make()
    for _ in range(3):
        whole.step()
    whole.put_back(torch.tensor([True, False]), start)
    resumed.step()  # a new process is less dirty than this
    state = copy.deepcopy(whole.state_dict())
    resumed.load_state_dict(state)
    for _ in range(2):
        assert same_bits(whole.step(), resumed.step())
    assert same_bits(parameters_of(whole.candidates()), parameters_of(resumed.candidates()))
