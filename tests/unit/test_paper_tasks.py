"""The paper preset against a second transcription of the published scripts' values."""

import pytest

from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.unio4.settings import UniO4Config

# critic, observations normalized, activation, OPE horizon, improvement rate, improvement steps,
# critic steps, cloning steps
OFFLINE = {
    "halfcheetah-medium": ("iql", True, "tanh", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "halfcheetah-medium-expert": ("sarsa", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "halfcheetah-medium-replay": ("iql", False, "tanh", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "hopper-medium": ("iql", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "hopper-medium-expert": ("sarsa", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "hopper-medium-replay": ("iql", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "walker2d-medium": ("iql", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "walker2d-medium-expert": ("iql", True, "relu", 1000, 1e-4, 10_000, 2_000_000, 400_000),
    "walker2d-medium-replay": ("iql", True, "relu", 1000, 1e-4, 10_000, 500_000, 400_000),
    "pen-human": ("iql", False, "relu", 50, 1e-5, 10_000, 1_000_000, 200_000),
    "pen-cloned": ("iql", False, "relu", 50, 1e-5, 10_000, 2_000_000, 400_000),
    "door-human": ("iql", False, "relu", 20, 1e-5, 5_000, 2_000_000, 400_000),
    "door-cloned": ("iql", False, "relu", 50, 1e-5, 10_000, 2_000_000, 400_000),
    "hammer-human": ("iql", True, "tanh", 50, 1e-5, 10_000, 2_000_000, 400_000),
    "hammer-cloned": ("iql", True, "tanh", 20, 1e-5, 10_000, 2_000_000, 400_000),
    "relocate-human": ("iql", False, "tanh", 10, 1e-5, 10_000, 2_000_000, 400_000),
    "relocate-cloned": ("iql", False, "tanh", 10, 1e-5, 10_000, 2_000_000, 400_000),
    "kitchen-complete": ("iql", False, "relu", 5, 5e-6, 1_000, 500_000, 100_000),
    "kitchen-partial": ("iql", True, "relu", 2, 3e-5, 1_000, 1_000_000, 200_000),
    "kitchen-mixed": ("iql", True, "relu", 2, 3e-5, 1_000, 1_000_000, 200_000),
    "antmaze-umaze": ("iql", False, "relu", 70, 3e-5, 10_000, 2_000_000, 400_000),
    "antmaze-umaze-diverse": ("iql", False, "relu", 50, 5e-5, 10_000, 2_000_000, 400_000),
    "antmaze-medium-play": ("iql", False, "relu", 100, 5e-5, 10_000, 2_000_000, 400_000),
    "antmaze-medium-diverse": ("iql", False, "relu", 100, 5e-5, 10_000, 2_000_000, 400_000),
    "antmaze-large-play": ("iql", False, "relu", 150, 5e-5, 10_000, 2_000_000, 400_000),
    "antmaze-large-diverse": ("iql", False, "relu", 150, 5e-5, 10_000, 2_000_000, 400_000),
}

# actor rate, epochs, minibatch, critic
ONLINE = {
    "halfcheetah-medium": (3e-5, 30, 128, "refit"),
    "halfcheetah-medium-expert": (2e-5, 10, 128, "refit"),
    "halfcheetah-medium-replay": (3e-5, 20, 128, "refit"),
    "hopper-medium": (1e-5, 5, 128, "refit"),
    "hopper-medium-expert": (6e-6, 5, 128, "refit"),
    "hopper-medium-replay": (1e-5, 5, 128, "refit"),
    "walker2d-medium": (1e-5, 20, 128, "offline"),
    "walker2d-medium-expert": (1e-5, 20, 128, "offline"),
    "walker2d-medium-replay": (1e-5, 20, 128, "offline"),
    "pen-human": (3e-6, 10, 256, "refit"),
    "pen-cloned": (3e-6, 10, 256, "refit"),
    "hammer-human": (8e-6, 10, 256, "refit"),
    "hammer-cloned": (8e-6, 10, 256, "refit"),
    "door-human": (8e-6, 10, 256, "offline"),
    "door-cloned": (8e-6, 10, 256, "offline"),
}

# hidden widths, rate, patience
LOCOMOTION_DYNAMICS = ((200,) * 4, 1e-3, 5)
LARGE = (400,) * 4
ADROIT = ("pen", "hammer", "door", "relocate")


def paper(task: str) -> UniO4Config:
    domain, _, kind = task.partition("-")
    return load_config("paper", dataset=f"minari:D4RL/{domain}/{kind}-v2")


def expected_dynamics(task: str) -> tuple[tuple[int, ...], float, int]:
    domain, _, kind = task.partition("-")
    if domain == "antmaze" and kind != "umaze-diverse":
        return LARGE, 3e-4, 5
    if domain in ADROIT or domain == "kitchen":
        return LARGE, 3e-4, 10 if kind == "cloned" else 20
    return LOCOMOTION_DYNAMICS


def test_the_table_is_complete() -> None:
    assert set(find_method("unio4").presets_of().tasks("paper", UniO4Config)) == set(OFFLINE)


@pytest.mark.parametrize("task", OFFLINE)
def test_offline(task: str) -> None:
    config = paper(task)
    improve, critics, behavior = config.improve, config.critics, config.behavior
    found = (
        *(critics.kind, config.prepare.normalize_observations, behavior.activation, improve.horizon),
        *(improve.learning_rate, improve.steps, critics.steps, behavior.steps),
    )
    assert found == OFFLINE[task]
    dynamics = config.dynamics
    assert (dynamics.hidden, dynamics.learning_rate, dynamics.patience) == expected_dynamics(task)
    assert (dynamics.members, dynamics.elites) == (7, 5)


@pytest.mark.parametrize("task", OFFLINE)
def test_families(task: str) -> None:
    config = paper(task)
    domain = task.split("-")[0]
    maze = domain == "antmaze"
    assert config.critics.expectile == (0.9 if maze else 0.7)
    assert config.critics.q_hidden == ((256,) * 3 if maze else (1024,) * 2)
    assert config.critics.v_hidden == ((256,) * 3 if maze else (512,) * 3)
    assert config.behavior.alpha == (0.0 if maze or task == "kitchen-mixed" else 0.1)
    assert config.behavior.hidden == (256,) * 3
    assert config.prepare.clip_actions == (domain in ADROIT)
    gate_every = 50 if domain in ("pen", "hammer", "door") and task.endswith("cloned") else 100
    assert config.improve.evaluate_every == gate_every


@pytest.mark.parametrize("task", OFFLINE)
def test_common(task: str) -> None:
    config = paper(task)
    behavior, critics, improve, online = config.behavior, config.critics, config.improve, config.finetune
    assert (behavior.members, behavior.batch_size, behavior.learning_rate) == (4, 512, 1e-4)
    assert (critics.batch_size, critics.learning_rate, critics.discount) == (512, 1e-4, 0.99)
    assert (critics.polyak, critics.target_every) == (0.005, 2)
    assert (improve.clip, improve.entropy, improve.starts) == (0.25, 0.0, 512)
    assert (improve.confidence, improve.margin, improve.trust, improve.acting) == (0.5, 0.0, None, "mean")
    assert (improve.advantages, improve.members, improve.std_scale) == ("critic", 4, 1.0)
    assert (behavior.weightings, behavior.diversity, config.extract.members) == (("uniform",), "paper", 0)
    assert (improve.estimator, improve.batch_size) == ("amq-sum", 512)
    assert (online.clip, online.entropy, online.critic_learning_rate) == (0.05, 0.01, 2e-4)
    assert (online.discount, online.gae_lambda, online.max_grad_norm) == (0.99, 0.95, 0.5)
    assert online.num_envs * online.rollout_steps == 2048


@pytest.mark.parametrize("task", ONLINE)
def test_online(task: str) -> None:
    online = paper(task).finetune
    found = (online.actor_learning_rate, online.epochs, online.minibatch_size, online.critic)
    assert found == ONLINE[task]
    # The offline V is ready; one that is fitted anew needs its warm-up.
    assert (online.warmup_steps == 0) == (online.critic == "offline")
