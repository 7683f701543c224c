"""A delivered policy acts as its folder says, wherever it is served."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import call

from unio4_lib.nets.files import save_policy
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import Policy, PolicySpec
from unio4_lib.runs.score_policy import evaluate_policy
from unio4_lib.serving import acting

OBSERVATIONS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
DRAWS = 20_000


def some_policy(**changed: Any) -> Policy:
    """A policy with scales and bounds of its own, whose samples seldom leave the bounds."""
    values = {"members": 1, "observation_dim": 5, "action_dim": 3, "hidden": (8,), "std_scale": 0.5} | changed
    random = torch.Generator().manual_seed(0)
    policy = build_policy(PolicySpec(**values), generator=random).requires_grad_(False)
    policy.set_scales(
        torch.randn(5, generator=random), torch.rand(5, generator=random) + 0.5,
        torch.tensor([-1.0, -0.4, 0.0]), torch.tensor([1.0, 0.4, 2.0]),
    )  # fmt: skip
    return policy


def served(policy: Policy, folder: Path, **facts: Any) -> Any:
    """What MLflow would load; ``predict`` of it."""
    save_policy(policy, folder, **facts)
    model = acting.ActingPolicy()
    model.load_context(SimpleNamespace(artifacts={"policy": str(folder)}))  # type: ignore[arg-type]
    return lambda observations: model.predict(None, observations)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"std": "shared"},
        {"activation": "tanh", "std_scale": 1.0},
        {"kind": "deterministic", "std_scale": 0.2},
        {"kind": "squashed", "std_scale": 3.0},
        {"kind": "family", "std": "shared", "coefficients": [1.0, 5.0]},
        {"kind": "squashed_family", "coefficients": [0.5, 1.5]},
    ],
    ids=str,
)
def test_samples_are_those_of_the_policy(changed: dict[str, Any], tmp_path: Path) -> None:
    """Mean, std and clamping against the policy's own actions with noise, many draws of each state."""
    policy = some_policy(**changed)
    act = served(policy, tmp_path / "p", acts="sampled")
    found = np.stack([act(np.repeat(row[None], DRAWS, axis=0)) for row in OBSERVATIONS])
    noise = np.random.default_rng(1).standard_normal((1, DRAWS, 3))
    wanted = np.stack([policy.act(np.repeat(row[None], DRAWS, axis=0), noise) for row in OBSERVATIONS])
    std = wanted.std(axis=1)
    assert std.min() > 1e-3
    # Six standard errors of a difference of means, and of a ratio of stds.
    assert (np.abs(found.mean(axis=1) - wanted.mean(axis=1)) < 6 * std * np.sqrt(2 / DRAWS)).all()
    np.testing.assert_allclose(found.std(axis=1), std, rtol=6 / np.sqrt(DRAWS))
    assert (found >= np.array([-1.0, -0.4, 0.0]) - 1e-6).all()
    assert (found <= np.array([1.0, 0.4, 2.0]) + 1e-6).all()
    # Dimensions and rows have noise of their own.
    correlations = np.corrcoef(found.transpose(0, 2, 1).reshape(9, DRAWS)) - np.eye(9)
    assert np.abs(correlations).max() < 6 / np.sqrt(DRAWS)


@pytest.mark.parametrize("facts", [{}, {"acts": "mean"}], ids=str)
def test_else_the_mean_action_is_taken(facts: dict[str, Any], tmp_path: Path) -> None:
    policy = some_policy()
    act = served(policy, tmp_path / "p", **facts)
    np.testing.assert_array_equal(act(OBSERVATIONS), act(OBSERVATIONS))
    np.testing.assert_allclose(act(OBSERVATIONS), policy.act(OBSERVATIONS), atol=1e-6)


@pytest.mark.parametrize("kind", ["family", "squashed_family"])
def test_a_family_acts_by_the_choice_of_its_balance(kind: str, tmp_path: Path) -> None:
    policy = some_policy(kind=kind, coefficients=[1.0, 5.0])
    with torch.no_grad():
        policy.balance.net.output.weight.mul_(100.0)
        policy.balance.net.output.bias.fill_(0.3)
    act = served(policy, tmp_path / "p")
    np.testing.assert_allclose(act(OBSERVATIONS), policy.act(OBSERVATIONS), atol=1e-6)
    with torch.no_grad():
        policy.balance.net.output.bias.fill_(-0.3)
    assert np.abs(act(OBSERVATIONS) - policy.act(OBSERVATIONS)).max() > 1e-3


@pytest.mark.parametrize("norm", [False, True])
def test_an_expanded_policy_takes_the_better_action(norm: bool, tmp_path: Path) -> None:
    """With one alone before it is expanded; what is tried comes from both policies."""
    policy = some_policy(kind="expanded", layer_norm=norm)
    random = torch.Generator().manual_seed(3)
    for part in (*policy.values.parameters(), policy.net.output.bias):
        part.normal_(generator=random)
    rows = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    alone = policy.act(rows)
    np.testing.assert_allclose(served(policy, tmp_path / "alone")(rows), alone, atol=1e-6)
    policy.expanded.fill_(True)
    wanted = policy.act(rows)
    assert 20 < (wanted != alone).all(axis=1).sum() < 180
    np.testing.assert_allclose(served(policy, tmp_path / "both")(rows), wanted, atol=1e-6)


def test_the_served_file_needs_nothing_of_this_project() -> None:
    """MLflow runs the file alone."""
    spec = importlib.util.find_spec("unio4_lib.serving.acting")
    assert spec is not None
    assert spec.origin is not None
    assert "import unio4" not in (text := Path(spec.origin).read_text())
    assert "from unio4" not in text


def pendulum(folder: Path, **facts: Any) -> Path:
    policy = build_policy(
        PolicySpec(1, 4, 1, (8,), "tanh", "state"), generator=torch.Generator().manual_seed(0)
    )
    save_policy(policy, folder, env_id="InvertedPendulum-v5", env_kwargs={}, **facts)
    return folder


def test_a_policy_is_scored_as_it_was_delivered(tmp_path: Path) -> None:
    by_mean = pendulum(tmp_path / "mean", acts="mean")
    by_samples = pendulum(tmp_path / "sampled", acts="sampled")
    of_old = pendulum(tmp_path / "old")

    def score(folder: Path, sampled: bool | None = None) -> tuple[float, bool]:
        found = evaluate_policy(str(folder), episodes=6, seed=3, sampled=sampled)
        return found["mean_return"], found["sampled"]

    mean, sampled = score(by_mean), score(by_samples)
    assert (mean[1], sampled[1]) == (False, True)
    assert mean[0] != sampled[0]
    assert score(of_old) == mean
    assert score(by_samples, sampled=False) == mean
    assert score(by_mean, sampled=True) == sampled


def test_the_command_takes_samples_or_the_mean_or_what_was_delivered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, same = str(pendulum(tmp_path / "p", acts="sampled")), ("--episodes", "3", "--json", "--quiet")
    found = [json.loads(call(capsys, "evaluate", folder, *same, *more)[1])["sampled"]
             for more in ((), ("--sampled",), ("--mean",))]  # fmt: skip
    assert found == [True, True, False]


@pytest.mark.parametrize(("acts", "notes"), [("sampled", 1), ("mean", 0)])
def test_an_export_says_what_the_file_leaves_out(
    acts: str, notes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(pendulum(tmp_path / "p", acts=acts))
    arguments = ("export", folder, "--format", "torchscript", "--output", str(tmp_path / "p.pt"))
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    note = "note: this policy was delivered with sampled actions; the file gives its mean action\n"
    assert out.count(note) == notes


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e300])
def test_observations_that_are_no_numbers_are_refused(broken: float, tmp_path: Path) -> None:
    """1e300 is none either, as the float32 that a policy sees."""
    act = served(some_policy(), tmp_path / "p")
    observations = OBSERVATIONS.astype(np.float64)
    assert np.isfinite(act(observations)).all()
    observations[1, 2] = broken
    with pytest.raises(ValueError, match=r"observations\[1\] is not finite"):
        act(observations)
