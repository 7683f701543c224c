"""The one policy class of all phases against scipy and torch, and on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from unio4_lib.errors import InputError
from unio4_lib.nets.files import DESCRIPTION, WEIGHTS, load_policy, save_policy
from unio4_lib.nets.policy import Gaussian, GaussianPolicy, PolicySpec

E, B, D, A = 3, 6, 4, 2
BOTH_STDS = pytest.mark.parametrize("std", ["state", "shared"])


def make_policy(std: Any = "state", seed: int = 0) -> GaussianPolicy:
    policy = GaussianPolicy(
        PolicySpec(E, D, A, (16, 16), "relu", std), generator=torch.Generator().manual_seed(seed)
    )
    policy.set_scales(
        torch.tensor([1.0, -2.0, 0.5, 10.0]),
        torch.tensor([0.5, 2.0, 1.0, 4.0]),
        torch.tensor([-2.0, 0.0]),
        torch.tensor([2.0, 10.0]),
    )
    return policy.requires_grad_(False)


def observations(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, D)) * 3


def test_density_and_entropy_equal_scipy_and_torch() -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_std, actions = torch.randn(3, E, B, A, generator=g, dtype=torch.float64)
    gaussian = Gaussian(mean, log_std)
    by_scipy = stats.norm.logpdf(actions.numpy(), mean.numpy(), np.exp(log_std.numpy())).sum(-1)
    by_torch = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    # Float64 throughout: only the order of operations differs.
    np.testing.assert_allclose(gaussian.log_prob(actions).numpy(), by_scipy, rtol=1e-12)
    torch.testing.assert_close(gaussian.log_prob(actions), by_torch.log_prob(actions))
    torch.testing.assert_close(gaussian.entropy(), by_torch.entropy())
    shared = gaussian.log_prob(actions[0])  # actions without member axis are those of every member
    torch.testing.assert_close(shared, by_torch.log_prob(actions[0].expand(E, B, A)))


def test_samples_are_mean_plus_std_times_the_given_noise() -> None:
    gaussian = Gaussian(torch.tensor([[[0.5]]]), torch.tensor([[[0.25]]]).log())
    assert gaussian.sample(torch.tensor([[[-2.0]]])).item() == pytest.approx(0.0)


@BOTH_STDS
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_means_stay_in_the_unit_box_and_stds_between_the_papers_bounds(std: Any, size: float) -> None:
    policy = make_policy(std)
    if std == "shared":
        policy.raw_std.copy_(torch.tensor([[[-size, size]], [[0.0, size]], [[-size, 0.1]]]))
    gaussian = policy.distribution(size * torch.randn(500, D, generator=torch.Generator().manual_seed(1)))
    assert gaussian.mean.abs().max() <= 1.0
    assert gaussian.log_std.min() >= -5.0
    assert gaussian.log_std.max() <= 0.0
    if size > 1:  # both bounds are reached, so they are these and not tighter ones
        assert gaussian.log_std.min() < -4.99
        assert gaussian.log_std.max() > -0.01
    assert gaussian.log_std.shape == gaussian.mean.shape == (E, 500, A)


@BOTH_STDS
def test_a_narrowed_policy_has_the_same_mean_and_a_smaller_std_and_keeps_both_on_disk(
    std: Any, tmp_path: Path
) -> None:
    policy = make_policy(std)
    narrow = policy.narrowed(0.5).narrowed(0.5)
    save_policy(narrow, tmp_path)
    rows = torch.randn(7, D, generator=torch.Generator().manual_seed(1))
    before = policy.distribution(rows)
    for other in (narrow, load_policy(tmp_path)[0], narrow.members([0, 1, 2])):
        after = other.distribution(rows)
        assert torch.equal(after.mean, before.mean)
        torch.testing.assert_close(after.log_std.exp(), 0.25 * before.log_std.exp())
    with torch.no_grad():
        narrow.net.output.bias.add_(1.0)  # its weights are its own
    assert torch.equal(policy.distribution(rows).mean, before.mean)


def test_the_std_is_squashed_once() -> None:
    """log std = -5 + 2.5 (tanh(raw) + 1): at raw 0.7 it is -0.9891; squashed twice it would be -1.155."""
    policy = make_policy("shared")
    policy.raw_std.fill_(0.7)
    expected = -5 + 2.5 * (np.tanh(0.7) + 1)
    torch.testing.assert_close(
        policy.distribution(torch.zeros(1, D)).log_std, torch.full((E, 1, A), expected, dtype=torch.float32)
    )


@BOTH_STDS
def test_act_speaks_the_units_of_the_environment(std: Any) -> None:
    policy, raw = make_policy(std), observations()
    normalized = torch.as_tensor((raw - [1.0, -2.0, 0.5, 10.0]) / [0.5, 2.0, 1.0, 4.0], dtype=torch.float32)
    gaussian = policy.distribution(normalized)
    noise = np.random.default_rng(1).normal(size=(E, B, A)) * 20
    for member in range(E):
        mean = gaussian.mean[member].numpy()
        assert policy.act(raw, member=member).dtype == np.float64
        # Scales [-2, 2] and [0, 10]; float32 inside, so 1e-5 of the range.
        np.testing.assert_allclose(policy.act(raw, member=member), mean * [2, 5] + [0, 5], atol=1e-4)
        sampled = np.clip(mean + gaussian.log_std[member].exp().numpy() * noise[member], -1, 1)
        assert (np.abs(sampled) == 1).any()  # some samples left the box
        np.testing.assert_allclose(policy.act(raw, noise, member), sampled * [2, 5] + [0, 5], atol=1e-4)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (np.zeros(D), r"observations of shape \(4,\); expected \(number, 4\)"),
        (np.zeros((2, D + 1)), r"observations of shape \(2, 5\); expected \(number, 4\)"),
        (np.full((2, D), np.nan), "observations are not finite"),
        (np.full((2, D), 1e39), "observations are not finite"),
    ],
)
def test_act_refuses_what_is_no_batch_of_observations(given: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        make_policy().act(given)


def test_actions_of_a_policy_never_leave_the_bounds() -> None:
    policy = make_policy()
    actions = policy.act(observations(), np.full((E, B, A), 1e4))
    assert np.array_equal(actions, np.tile([2.0, 10.0], (B, 1)))


@BOTH_STDS
def test_saving_and_loading_keeps_every_bit_and_the_facts(std: Any, tmp_path: Path) -> None:
    policy = make_policy(std)
    save_policy(policy, tmp_path / "a", env_id="Hopper-v5", env_kwargs={"x": 0.1})
    loaded, facts = load_policy(tmp_path / "a")
    assert facts == {"env_id": "Hopper-v5", "env_kwargs": {"x": 0.1}}
    assert loaded.spec == policy.spec
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    state = policy.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    noise = np.random.default_rng(0).normal(size=(E, B, A))
    for member in range(E):
        assert np.array_equal(
            policy.act(observations(), noise, member), loaded.act(observations(), noise, member)
        )
    save_policy(loaded, tmp_path / "b", **facts)
    for name in (WEIGHTS, DESCRIPTION):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_without_a_readable_policy_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no policy here, policy\.json is missing; expected the folder"):
        load_policy(tmp_path)
    save_policy(make_policy(), tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_policy(tmp_path)
    assert "\n" not in str(caught.value)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    description["spec"]["hidden"] = [8, 8]  # weights of another shape
    save_policy(make_policy(), tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"cannot be read: .*size mismatch"):
        load_policy(tmp_path)


@BOTH_STDS
def test_chosen_members_act_the_same_and_share_nothing(std: Any) -> None:
    policy = make_policy(std)
    chosen = policy.members([2, 0])
    before = policy.act(observations(), member=2)
    assert chosen.spec.members == 2
    # One product for two members in place of three: the same numbers up to float32 rounding.
    np.testing.assert_allclose(chosen.act(observations(), member=0), before, atol=1e-5)
    np.testing.assert_allclose(
        chosen.act(observations(), member=1), policy.act(observations(), member=0), atol=1e-5
    )
    for tensor in chosen.state_dict().values():
        tensor.zero_()
    assert np.array_equal(policy.act(observations(), member=2), before)
