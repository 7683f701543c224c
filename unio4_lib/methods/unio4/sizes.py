"""The networks that the stages of Uni-O4 train and ask, and what else they hold in memory."""

from unio4_lib.methods.unio4.settings import SELECTION_FACTOR, UniO4Config
from unio4_lib.stages.sizes import ENVIRONMENT, FLOAT, activations
from unio4_lib.stages.step import Estimates, Layers

NUMBERS = 3  # that a step of a rollout keeps at the least


def cloning(config: UniO4Config) -> list[Layers]:
    said = config.behavior
    return [Layers("behavior.members and hidden", said.members, said.hidden, said.batch_size, said.steps)]


def critics(config: UniO4Config) -> list[Layers]:
    said = config.critics
    return [
        Layers("critics.q_hidden", 2, said.q_hidden, said.batch_size, said.steps),
        Layers("critics.v_hidden", 1, said.v_hidden, said.batch_size, said.steps),
    ]


def models(config: UniO4Config) -> list[Layers]:
    said = config.dynamics
    return [Layers("dynamics.members and hidden", said.members, said.hidden, said.batch_size, said.steps)]


def improvement(config: UniO4Config) -> list[Layers]:
    """Extraction, policies, V, and the second estimate."""
    said, hidden = config.improve, config.behavior.hidden
    updates, found = said.steps, []
    if said.advantages == "model":
        batches = -(-said.rollouts * said.rollout_steps // said.batch_size)
        updates = said.steps * said.epochs * batches
        value = "improve.value_hidden"
        found.append(Layers(value, tracks(config), said.value_hidden, said.batch_size, updates))
    policies = "improve.members and behavior.hidden"
    found.append(Layers(policies, tracks(config), hidden, said.batch_size, updates))
    if config.extract.members > 0:
        own, extracted = config.extraction(), "extract.members and behavior.hidden"
        found.append(Layers(extracted, own.members, hidden, own.batch_size, own.steps))
    if config.fqe.steps > 0:
        again, judged = config.fqe, config.behavior.members + config.extract.members
        values = judged * again.critics
        found.append(Layers("fqe.critics and hidden", values, again.hidden, again.batch_size, again.steps))
    return found


def judgement(config: UniO4Config) -> list[Layers]:
    """The models that policies walk in: to learn there, and before the judge; walks may end sooner."""
    said, model = config.improve, config.dynamics.hidden
    ways, name = 2 if said.acting == "both" else 1, "dynamics.hidden"
    looks, pairs = said.steps // said.evaluate_every, 2 * ways * tracks(config) * said.starts
    policies = config.behavior.members + config.extract.members
    found = [
        Layers(name, 1, model, pairs, looks * said.horizon, learns=False),
        Layers(name, 1, model, SELECTION_FACTOR * ways * policies * said.starts, said.horizon, learns=False),
    ]
    if said.advantages == "model":
        rows, steps = said.rollouts * tracks(config), said.steps * said.rollout_steps
        found.append(Layers(name, 1, model, rows, steps, learns=False))
    return found


def tracks(config: UniO4Config) -> int:
    """Policies that are improved side by side."""
    return min(config.improve.members, config.behavior.members + config.extract.members)


def walks(config: UniO4Config) -> Estimates:
    """In the models."""
    said = config.improve
    rows = said.rollouts * said.rollout_steps if said.advantages == "model" else 0
    return [
        ("improve.rollouts and rollout_steps", NUMBERS * FLOAT * tracks(config) * rows),
        (
            "improve.starts and behavior.hidden",
            activations(tracks(config) * said.starts, config.behavior.hidden),
        ),
    ]


def online(config: UniO4Config) -> list[Layers]:
    said = config.finetune
    return [
        Layers("finetune.value_hidden", 1, said.value_hidden, said.minibatch_size, online_updates(config))
    ]


def tuned(config: UniO4Config) -> list[Layers]:
    """The policy, which comes as it was cloned."""
    rows = config.finetune.minibatch_size
    return [Layers("behavior.hidden", 1, config.behavior.hidden, rows, online_updates(config))]


def online_updates(config: UniO4Config) -> int:
    return config.finetune.epochs * (config.finetune.env_steps // config.finetune.minibatch_size)


def environments(config: UniO4Config) -> Estimates:
    said = config.finetune
    return [
        ("finetune.num_envs", said.num_envs * ENVIRONMENT),
        ("finetune.num_envs and rollout_steps", NUMBERS * FLOAT * said.num_envs * said.rollout_steps),
    ]
