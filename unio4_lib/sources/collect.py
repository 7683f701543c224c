"""Recording of new datasets: a behavior policy is trained to a level, then acts for the record.

The result is an ordinary Minari dataset, written by Minari's own storage; its identifier contains a
fingerprint of what was asked for, so asking again gives the same dataset without any work.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from unio4_lib.data.reference import reference_scores
from unio4_lib.errors import InputError
from unio4_lib.learning.journal import Journal
from unio4_lib.learning.ppo import PPO
from unio4_lib.learning.threads import torch_threads
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.policy import GaussianPolicy, Policy, PolicySpec
from unio4_lib.settings.model import FinetuneConfig
from unio4_lib.sim import make_sim
from unio4_lib.sim.base import Array, BatchSim, StepResult
from unio4_lib.sources.collect_spec import CollectSpec
from unio4_lib.sources.given_policy import policy_digest, policy_folder
from unio4_lib.sources.minari_source import datasets_root
from unio4_lib.sources.recordable import check_recordable, check_step
from unio4_lib.sources.recording_file import reserve, write_recording

COLLECTOR_VERSION = 1  # part of every fingerprint: raise it when the same request gives other data
DEFAULT_TRAIN_STEPS = 400_000
MEDIUM_SHARE = 0.35  # of the way from a random to an expert return: well above standing still in Hopper
RECENT = 50  # finished episodes behind the return that decides about a level
CHECKPOINTS = 20  # policies kept on the way, to choose a medium one afterwards
RECORD_ENVS = 16
HIDDEN = (64, 64)

Progress = Callable[[str, int, int, float], None]  # phase, steps done, steps in all, recent mean return
Actor = Callable[[Array], Array]  # observations [N, D] -> actions [N, A], both in environment units


def collect(spec: CollectSpec, progress: Progress | None = None, journal: Journal | None = None) -> str:
    """Record the dataset that ``spec`` asks for, unless it exists, and return its Minari id.

    With a ``journal`` training goes on from its last checkpoint; recording begins anew.
    """
    _check(spec)
    dataset_id = _dataset_id(spec)
    if (datasets_root() / dataset_id / "data" / "metadata.json").exists():
        return dataset_id
    check_recordable(spec)
    reserve(datasets_root())
    report = progress if progress is not None else _silent
    with torch_threads(1):
        episodes, algorithm = _record(spec, report, journal or Journal())
    write_recording(dataset_id, spec, episodes, algorithm)
    return dataset_id


def _silent(phase: str, done: int, total: int, mean_return: float) -> None:
    """Progress that nobody watches."""


def _check(spec: CollectSpec) -> None:
    if spec.steps < 1:
        raise InputError(f"collect: steps is {spec.steps}, expected at least 1")
    if (spec.level == "target") != (spec.target_return is not None):
        raise InputError(
            f"collect: level={spec.level} with target={spec.target_return}; a target return belongs to "
            "level=target and to no other"
        )


def _dataset_id(spec: CollectSpec) -> str:
    """For example ``unio4/hopper/medium-s0-1f2e3d4c-v0``."""
    asked = asdict(spec)
    policy = asked.pop("policy")
    if policy is not None:  # what it holds, wherever it lies
        asked["policy"] = policy_digest(policy)
    text = json.dumps([COLLECTOR_VERSION, asked], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:8]
    family = re.split("[/:]", spec.env_id)[-1].rsplit("-v", 1)[0].lower()
    return f"unio4/{family}/{spec.level}-s{spec.seed}-{fingerprint}-v0"


class Recording:
    """Transitions of N environments, kept as rows [N, ...] for each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[Array, Array, StepResult]] = []

    def __call__(self, observations: Array, actions: Array, result: StepResult) -> None:
        self.steps.append((observations, actions, result))

    def episodes(self, rows: int | None = None) -> list[EpisodeBuffer]:
        """Episodes in the order of their ends, at most ``rows`` transitions in all.

        An episode that the recording cuts off is marked as truncated: its successor has a value.
        """
        pieces = list(self._pieces())
        kept: list[EpisodeBuffer] = []
        left = sum(len(env) for _, env in pieces) if rows is None else rows
        for _, piece in sorted(pieces, key=lambda item: item[0]):
            if left <= 0:
                break
            kept.append(_episode(piece, left))
            left -= len(kept[-1])
        return kept

    def _pieces(self) -> Iterator[tuple[int, "_Piece"]]:
        """Unbroken stretches of single environments with the step at which each ended."""
        observations = np.stack([step[0] for step in self.steps])
        actions = np.stack([step[1] for step in self.steps])
        results = [step[2] for step in self.steps]
        rewards = np.stack([result.rewards for result in results])
        successors = np.stack([result.next_observations for result in results])
        terminals = np.stack([result.terminals for result in results])
        timeouts = np.stack([result.timeouts for result in results])
        for env in range(rewards.shape[1]):
            ends = np.flatnonzero(terminals[:, env] | timeouts[:, env]) + 1
            bounds = [0, *ends.tolist(), len(rewards)]
            for first, last in itertools.pairwise(bounds):
                if first == last:
                    continue
                part = slice(first, last)
                yield (
                    last,
                    _Piece(
                        observations[part, env],
                        actions[part, env],
                        rewards[part, env],
                        successors[part, env],
                        terminals[part, env],
                    ),
                )


@dataclass(frozen=True)
class _Piece:
    """One episode, or the beginning of one: arrays [T, ...]."""

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    terminals: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rewards)


def _episode(piece: _Piece, most: int) -> EpisodeBuffer:
    """The first ``most`` steps of a piece as Minari stores them: T + 1 observations."""
    length = min(len(piece), most)
    terminations = piece.terminals[:length]
    truncations = np.zeros(length, np.bool_)
    truncations[-1] = not terminations[-1]
    observations = np.concatenate((piece.observations[:length], piece.next_observations[length - 1 : length]))
    return EpisodeBuffer(
        observations=observations,
        actions=piece.actions[:length].astype(np.float32),
        rewards=piece.rewards[:length],
        terminations=terminations,
        truncations=truncations,
    )


@dataclass
class Behavior:
    """What training leaves behind: policies along the way with their returns, and all experience."""

    checkpoints: list[tuple[float, GaussianPolicy]]
    experience: Recording
    reached: bool


def _record(spec: CollectSpec, report: Progress, journal: Journal) -> tuple[list[EpisodeBuffer], str]:
    """Episodes as asked for, and the name of what acted in them."""
    if spec.level == "random":
        return _play(spec, _random_actor(spec), spec.steps, 0, report), "uniform random actions"
    if spec.policy is not None:
        return _play(
            spec, _actor(spec, _given(spec, spec.policy), 1), spec.steps, 1, report
        ), "a given policy"
    sim = make_sim(spec.env_id, COLLECT_CONFIG.num_envs, env_kwargs=spec.env_kwargs)
    try:
        behavior = _train(spec, sim, report, journal)
    finally:
        sim.close()
    if spec.level == "medium-replay":
        return _thinned(behavior.experience.episodes(), spec.steps), "PPO, training experience"
    if spec.level == "medium-expert":
        half = spec.steps // 2
        medium, expert = _medium(spec, behavior), behavior.checkpoints[-1][1]
        episodes = _play(spec, _actor(spec, medium, 1), spec.steps - half, 1, report)
        return episodes + _play(spec, _actor(spec, expert, 2), half, 2, report), "PPO"
    policy = _medium(spec, behavior) if spec.level == "medium" else behavior.checkpoints[-1][1]
    return _play(spec, _actor(spec, policy, 1), spec.steps, 1, report), "PPO"


# Settings of training from scratch, the same for every environment. All that PPO reads is written out:
# recorded data must stay the same when a default of fine-tuning changes.
COLLECT_CONFIG = FinetuneConfig(
    env_steps=DEFAULT_TRAIN_STEPS,
    num_envs=32,
    rollout_steps=64,
    epochs=10,
    minibatch_size=256,
    actor_learning_rate=5e-4,
    critic_learning_rate=2e-3,
    clip=0.2,
    discount=0.99,
    gae_lambda=0.95,
    entropy=0.0,
    max_grad_norm=0.5,
    anneal=False,
    target_kl=0.03,
    warmup_steps=0,
    value_hidden=HIDDEN,
)


def _goal(spec: CollectSpec) -> float | None:
    """The return at which training may stop; None trains for the whole budget."""
    if spec.level == "target":
        return spec.target_return
    scores = reference_scores(spec.env_id)
    if spec.level in ("medium", "medium-replay") and scores is not None:
        return scores[0] + MEDIUM_SHARE * (scores[1] - scores[0])
    return None


def _train(spec: CollectSpec, sim: BatchSim, report: Progress, journal: Journal) -> Behavior:
    """Train until the goal or to the end of the budget, keeping policies on the way."""
    budget = DEFAULT_TRAIN_STEPS if spec.train_steps is None else spec.train_steps
    goal, experience = _goal(spec), Recording()
    kept = experience if spec.level == "medium-replay" else None

    def observer(observations: Array, actions: Array, result: StepResult) -> None:
        check_step(spec.env_id, result)
        if kept is not None:
            kept(observations, actions, result)

    ppo = _learner(spec, sim)
    checkpoints: list[tuple[float, GaussianPolicy]] = []
    recent = -np.inf
    if journal.resumed is not None:
        ppo.load_state_dict(journal.resumed["ppo"])
        checkpoints = [(value, _restored(ppo.policy, state)) for value, state in journal.resumed["policies"]]

    def state() -> dict[str, Any]:
        policies = [(value, policy.state_dict()) for value, policy in checkpoints]
        return {"ppo": ppo.state_dict(), "policies": policies}

    while ppo.env_steps < budget:
        ppo.train(observer)
        returns = list(ppo.collector.recent_returns)[-RECENT:]
        recent = float(np.mean(returns)) if len(returns) == RECENT else -np.inf
        if np.isfinite(recent) and ppo.env_steps * CHECKPOINTS >= len(checkpoints) * budget:
            checkpoints.append((recent, ppo.policy.members([0])))
        report("train", ppo.env_steps, budget, recent)
        if goal is not None and recent >= goal:
            break
        journal.entry(ppo.env_steps, {"collect/return": recent} if np.isfinite(recent) else {})
        if kept is None:  # all experience in every checkpoint would be too much: that begins anew
            journal.offer(state)
    checkpoints.append((recent, ppo.policy.members([0])))
    reached = goal is None or recent >= goal
    if spec.level == "target" and not reached:
        raise InputError(
            f"collect: {spec.env_id} reached a return of {recent:.1f} in {ppo.env_steps} training steps, "
            f"expected target={goal:g}: ask for less, or for more train_steps"
        )
    return Behavior(checkpoints, experience, reached)


def _restored(like: GaussianPolicy, state: dict[str, Any]) -> GaussianPolicy:
    policy = like.members([0])
    policy.load_state_dict(state)
    return policy


def _learner(spec: CollectSpec, sim: BatchSim) -> PPO:
    """An untrained policy and value function in the environment's units."""
    generator = torch.Generator().manual_seed(spec.seed)
    shape = PolicySpec(1, sim.observation_dim, sim.action_dim, HIDDEN, "tanh", "shared")
    policy = GaussianPolicy(shape, generator=generator)
    low, high = torch.as_tensor(sim.action_low), torch.as_tensor(sim.action_high)
    policy.set_scales(policy.observation_mean.clone(), policy.observation_std.clone(), low, high)
    value = ValueFunction.create(sim.observation_dim, HIDDEN, activation="tanh", generator=generator)
    return PPO(policy, value, sim, COLLECT_CONFIG, seed=spec.seed, normalize="running")


def _medium(spec: CollectSpec, behavior: Behavior) -> GaussianPolicy:
    """The policy at the goal, or, without a known goal, the one nearest to half of what was reached."""
    scored = [item for item in behavior.checkpoints if np.isfinite(item[0])]
    if not scored or (_goal(spec) is not None):
        return behavior.checkpoints[-1][1]
    returns = np.array([item[0] for item in scored])
    middle = 0.5 * (returns[0] + returns.max())
    return scored[int(np.abs(returns - middle).argmin())][1]


def _given(spec: CollectSpec, place: str) -> Policy:
    """The policy that was asked for, if it fits the environment."""
    policy, _ = load_policy(policy_folder(place))
    sim = make_sim(spec.env_id, 1, env_kwargs=spec.env_kwargs)
    wanted, found = (sim.observation_dim, sim.action_dim), policy.spec
    sim.close()
    if (found.observation_dim, found.action_dim) != wanted:
        raise InputError(
            f"collect: policy={place} has {found.observation_dim} observations and {found.action_dim} "
            f"actions, but {spec.env_id} has {wanted[0]} and {wanted[1]}"
        )
    return policy


def _actor(spec: CollectSpec, policy: Policy, stream: int) -> Actor:
    """Sampled actions, or the mean plus noise of a given std (unit actions)."""
    generator = np.random.default_rng((spec.seed, stream))

    def act(observations: Array) -> Array:
        draws = generator.standard_normal((len(observations), policy.spec.action_dim))
        if spec.noise is None:
            return policy.act(observations, draws)
        half = 0.5 * (policy.action_high - policy.action_low).double().numpy()
        low, high = policy.action_low.double().numpy(), policy.action_high.double().numpy()
        return np.clip(policy.act(observations) + spec.noise * half * draws, low, high)

    return act


def _random_actor(spec: CollectSpec) -> Actor:
    """Actions uniform in the box."""
    generator = np.random.default_rng((spec.seed, 0))
    sim = make_sim(spec.env_id, 1, env_kwargs=spec.env_kwargs)
    low, high = sim.action_low, sim.action_high
    sim.close()
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(f"collect: {spec.env_id} has unbounded actions, which level=random cannot draw")
    return lambda observations: generator.uniform(low, high, (len(observations), len(low)))


def _play(spec: CollectSpec, actor: Actor, steps: int, stream: int, report: Progress) -> list[EpisodeBuffer]:
    """``steps`` transitions of an actor."""
    sim = make_sim(spec.env_id, min(RECORD_ENVS, steps), env_kwargs=spec.env_kwargs)
    recording, running, finished = Recording(), np.zeros(sim.num_envs), [np.nan]
    # Other starts than in training, which was seeded with the seed itself.
    observations = sim.reset(int(np.random.default_rng((spec.seed, stream, 1)).integers(2**31)))
    for done in range(0, steps, sim.num_envs):
        # Recorded actions are float32: the environment must see exactly the same numbers.
        actions = actor(observations).astype(np.float32).astype(np.float64)
        result = sim.step(actions)
        check_step(spec.env_id, result)
        recording(observations, actions, result)
        observations = result.observations
        running += result.rewards
        ended = result.terminals | result.timeouts
        finished.extend(running[ended].tolist())
        running[ended] = 0.0
        if done // sim.num_envs % 100 == 0:
            report("record", done, steps, float(np.mean(finished[1:])) if len(finished) > 1 else np.nan)
    report("record", steps, steps, float(np.mean(finished[1:])) if len(finished) > 1 else np.nan)
    sim.close()
    return recording.episodes(steps)


def _thinned(episodes: list[EpisodeBuffer], steps: int) -> list[EpisodeBuffer]:
    """Every k-th episode in the order of training, so that about ``steps`` transitions remain."""
    total = sum(len(episode) for episode in episodes)
    if total <= steps:
        return episodes
    count = max(1, round(len(episodes) * steps / total))
    return [episodes[i] for i in np.linspace(0, len(episodes) - 1, count).round().astype(int)]
