"""What the stages of Uni-O4 hold in memory and train at the least, with the settings that decide it."""

from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.sizes import ENVIRONMENT, FLOAT, activations, networks
from unio4_lib.stages.step import Estimates, Layers


def cloning(config: UniO4Config) -> Estimates:
    said = config.behavior
    return [
        ("behavior.members and hidden", networks(said.members, said.hidden)),
        ("behavior.members, batch_size and hidden", activations(said.members, said.batch_size, said.hidden)),
    ]


def critics(config: UniO4Config) -> Estimates:
    said = config.critics
    return [
        ("critics.q_hidden and v_hidden", networks(1, said.q_hidden, said.v_hidden)),
        ("critics.batch_size, q_hidden and v_hidden",
         activations(1, said.batch_size, said.q_hidden, said.v_hidden)),
    ]  # fmt: skip


def dynamics(config: UniO4Config) -> Estimates:
    said = config.dynamics
    return [
        ("dynamics.members and hidden", networks(said.members, said.hidden)),
        ("dynamics.members, batch_size and hidden", activations(said.members, said.batch_size, said.hidden)),
    ]


def improvement(config: UniO4Config) -> Estimates:
    said, hidden = config.improve, config.behavior.hidden
    tracks = min(said.members, config.behavior.members + config.extract.members)
    rows = said.rollouts * said.rollout_steps if said.advantages == "model" else 0
    return [
        ("extract.members and behavior.hidden", networks(config.extract.members, hidden)),
        ("improve.rollouts and rollout_steps", 3 * FLOAT * tracks * rows),
        ("improve.starts and behavior.hidden", activations(tracks, said.starts, hidden)),
        ("improve.value_hidden", networks(tracks, said.value_hidden)),
    ]


def online(config: UniO4Config) -> Estimates:
    said = config.finetune
    return [
        ("finetune.num_envs", said.num_envs * ENVIRONMENT),
        ("finetune.num_envs and rollout_steps", 3 * FLOAT * said.num_envs * said.rollout_steps),
        ("finetune.value_hidden", networks(1, said.value_hidden)),
    ]


def clone_layers(config: UniO4Config) -> list[Layers]:
    said = config.behavior
    return [Layers("behavior.members and hidden", said.members, said.hidden, said.batch_size, said.steps)]


def critic_layers(config: UniO4Config) -> list[Layers]:
    said = config.critics
    return [
        Layers("critics.q_hidden", 2, said.q_hidden, said.batch_size, said.steps),
        Layers("critics.v_hidden", 1, said.v_hidden, said.batch_size, said.steps),
    ]


def model_layers(config: UniO4Config) -> list[Layers]:
    said = config.dynamics
    return [Layers("dynamics.members and hidden", said.members, said.hidden, said.batch_size, said.steps)]


def improved_layers(config: UniO4Config) -> list[Layers]:
    said, hidden = config.improve, config.behavior.hidden
    tracks = min(said.members, config.behavior.members + config.extract.members)
    return [Layers("improve.members and behavior.hidden", tracks, hidden, said.batch_size, said.steps)]


def online_layers(config: UniO4Config) -> list[Layers]:
    said = config.finetune
    updates = said.env_steps // said.minibatch_size
    return [Layers("behavior.hidden", 1, config.behavior.hidden, said.minibatch_size, updates)]
