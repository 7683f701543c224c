"""Policies that only have a mean, and policies that tanh brings into the box: against torch, and on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from unio4_lib.errors import InputError
from unio4_lib.nets.files import DESCRIPTION, load_policy, save_policy
from unio4_lib.nets.kinds import (
    KINDS,
    DeterministicPolicy,
    ExpandedPolicy,
    Squashed,
    SquashedPolicy,
    build_policy,
)
from unio4_lib.nets.policy import GaussianPolicy, Kind, Policy, PolicySpec

E, B, D, A = 2, 6, 4, 2
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


def make_policy(kind: Kind, std_scale: float = 1.0) -> Policy:
    ends = (1.0, 5.0) if "family" in kind else (0.0, 0.0)
    spec = PolicySpec(E, D, A, (16,), std_scale=std_scale, kind=kind, coefficients=ends)
    policy = build_policy(spec, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(D)
    policy.set_scales(3 * ones, 2 * ones, torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0]))
    with torch.no_grad():
        if isinstance(policy, ExpandedPolicy):
            policy.expanded.fill_(True)
        policy.net.output.bias.normal_(generator=torch.Generator().manual_seed(1))
    return policy.requires_grad_(False)


def observations() -> np.ndarray:
    return np.random.default_rng(0).normal(3.0, 2.0, size=(B, D))


def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(E, B, A))


def some_squashed(dtype: torch.dtype = torch.float64) -> tuple[Squashed, Tensor]:
    raw_mean, log_std, draws = torch.randn(
        3, E, B, A, generator=torch.Generator().manual_seed(0), dtype=dtype
    )
    return Squashed(raw_mean, 0.3 * log_std - 0.5), draws


def test_squashed_density_equals_torch() -> None:
    squashed, draws = some_squashed()
    normal = Normal(squashed.raw_mean, squashed.log_std.exp())
    by_torch = Independent(TransformedDistribution(normal, TanhTransform()), 1)
    actions, log_probs = squashed.sample_with_log_prob(draws)
    torch.testing.assert_close(actions, squashed.sample(draws))
    torch.testing.assert_close(actions, torch.tanh(normal.mean + normal.stddev * draws))
    torch.testing.assert_close(log_probs, by_torch.log_prob(actions))
    torch.testing.assert_close(squashed.log_prob(actions), log_probs)
    shared = actions[0]  # actions without member axis are those of every member
    torch.testing.assert_close(squashed.log_prob(shared), by_torch.log_prob(shared.expand(E, B, A)))


def test_squashed_density_is_one_over_the_box() -> None:
    """Integrated over actions, which a wrong Jacobian would not survive."""
    squashed = Squashed(torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), -0.2))
    edges = torch.linspace(-1.0, 1.0, 20_001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    mass = squashed.log_prob(middle[:, None]).exp() * (edges[1] - edges[0])
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-3)


def test_squashed_densities_stay_finite_where_tanh_has_become_one() -> None:
    squashed = Squashed(torch.full((1, 3, 1), 30.0), torch.zeros(1, 3, 1))
    draws = torch.tensor([-1.0, 0.0, 200.0])[None, :, None].requires_grad_(True)
    actions, log_probs = squashed.sample_with_log_prob(draws)
    assert float(actions.detach().max()) == 1.0
    log_probs.sum().backward()
    assert draws.grad is not None
    assert torch.isfinite(log_probs).all() and torch.isfinite(draws.grad).all()
    assert torch.isfinite(squashed.log_prob(torch.ones(3, 1))).all()


def test_a_deterministic_policy_has_one_std_for_all(tmp_path: Path) -> None:
    policy = make_policy("deterministic", std_scale=0.1)
    rows = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    found = policy.distribution(rows)
    torch.testing.assert_close(found.mean, torch.tanh(policy.net(rows)))
    draws = torch.as_tensor(noise(), dtype=torch.float32)
    torch.testing.assert_close(found.sample(draws), found.mean + 0.1 * draws)
    assert policy.net.output.weight.shape[-1] == A


def test_a_squashed_policy_keeps_its_std_between_bounds() -> None:
    policy = make_policy("squashed")
    assert isinstance(policy, SquashedPolicy)
    found = policy.distribution(1e4 * torch.randn(500, D, generator=torch.Generator().manual_seed(1)))
    assert (float(found.log_std.min()), float(found.log_std.max())) == pytest.approx((-5.0, 2.0), abs=1e-3)
    narrow = policy.narrowed(0.5)
    rows = torch.zeros(1, D)
    wide, half = policy.distribution(rows), narrow.distribution(rows)
    torch.testing.assert_close(half.log_std.exp(), 0.5 * wide.log_std.exp())
    assert torch.equal(half.mean, wide.mean)


@ALL_KINDS
def test_act_speaks_the_units_of_the_environment(kind: Kind) -> None:
    policy = make_policy(kind, std_scale=0.5)
    raw = observations()
    found = policy.distribution(torch.as_tensor((raw - 3.0) / 2.0, dtype=torch.float32))
    draws = torch.as_tensor(noise(), dtype=torch.float32)
    for member in range(E):
        mean, sampled = found.mean[member].numpy(), found.sample(draws)[member].clamp(-1, 1).numpy()
        np.testing.assert_allclose(policy.act(raw, member=member), mean * [2, 5] + [0, 5], atol=1e-4)
        np.testing.assert_allclose(policy.act(raw, noise(), member), sampled * [2, 5] + [0, 5], atol=1e-4)


@ALL_KINDS
def test_every_kind_comes_back_from_disk_as_itself(kind: Kind, tmp_path: Path) -> None:
    policy = make_policy(kind, std_scale=0.5)
    save_policy(policy, tmp_path, env_id="Hopper-v5")
    loaded, facts = load_policy(tmp_path)
    assert (type(loaded), loaded.spec, facts) == (type(policy), policy.spec, {"env_id": "Hopper-v5"})
    assert np.array_equal(loaded.act(observations(), noise()), policy.act(observations(), noise()))
    chosen = policy.members([1])
    assert type(chosen) is type(policy)
    # One product for one member in place of two: the same numbers up to float32 rounding.
    np.testing.assert_allclose(chosen.act(observations()), policy.act(observations(), member=1), atol=1e-5)


def test_a_file_that_does_not_say_its_kind_is_gaussian(tmp_path: Path) -> None:
    save_policy(make_policy("gaussian"), tmp_path)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["spec"]["kind"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    assert isinstance(load_policy(tmp_path)[0], GaussianPolicy)


def test_a_kind_that_is_not_wanted_or_not_known_is_one_line(tmp_path: Path) -> None:
    save_policy(make_policy("squashed"), tmp_path)
    assert isinstance(load_policy(tmp_path, SquashedPolicy)[0], SquashedPolicy)
    with pytest.raises(InputError, match="the policy is squashed; expected a DeterministicPolicy"):
        load_policy(tmp_path, DeterministicPolicy)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    description["spec"]["kind"] = "beta"
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(InputError, match="policy of kind beta; expected one of gaussian, deter") as caught:
        load_policy(tmp_path)
    assert "\n" not in str(caught.value)
