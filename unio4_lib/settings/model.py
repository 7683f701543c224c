"""One YAML file is one run: closed, frozen models, one for each stage.

Every field says its meaning, its unit and, where it matters, its origin; the reference page in the
documentation is generated from these descriptions.
"""

import hashlib
import json
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unio4_lib.settings.weightings import Weighting, needs_critics

Width = Annotated[int, Field(strict=True, ge=1)]
# Lists are what YAML has; strict mode would ask for a Python tuple.
Hidden = Annotated[tuple[Width, ...], Field(strict=False, min_length=1)]


MOST_EPISODES = 1_000_000  # of a score: more cannot change a digit that is shown


class StageConfig(BaseModel):
    """Base of all parts: unknown keys are errors, values cannot be changed after validation.

    Strict: no text becomes a number and no number a truth value behind the user's back.
    Defaults are validated too, so that a preset of one half cannot contradict the other half's default.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


class PrepareConfig(StageConfig):
    """Dataset preparation."""

    normalize_observations: bool = Field(True, description="Standardize observations (paper: per task).")
    std_floor: float = Field(1e-3, gt=0, description="Smallest observation std (paper 1e-10 blows up).")
    reward_scaling: Literal["none", "number", "normal", "dynamic"] = Field(
        "normal",
        description="How rewards are scaled for the critics: not at all, by reward_scale, by "
        "1000 / (best - worst return) as IQL, or by the running std of the discounted return.",
    )
    reward_scale: float = Field(0.1, gt=0, description="Factor for reward_scaling=number.")
    clip_actions: bool = Field(False, description="Clip actions into the bounds in place of refusing.")


Precision = Literal["auto", "float32", "bfloat16"]
PRECISION: Precision = Field(
    "auto", description="Of products in training; auto: bfloat16 where the processor has instructions for it."
)


class CloningConfig(StageConfig):
    """An ensemble of policies cloned from weighted rows; member i has weighting i, round and round."""

    members: int = Field(6, ge=1, description="Policies (paper: 4).")
    weightings: Annotated[tuple[Weighting, ...], Field(strict=False, min_length=1)] = Field(
        ("uniform", "return:1", "return:0.5"),
        description="How rows count, member by member and round and round: uniform (paper), return:T, "
        "advantage:B (in extract only), several joined by *.",
    )
    hidden: Hidden = Field((256, 256), description="Hidden layer widths (paper: 256 x 3).")
    activation: Literal["relu", "tanh", "silu"] = Field("relu", description="Hidden activation.")
    std: Literal["state", "shared"] = Field("state", description="Std from the state or one per dimension.")
    steps: int = Field(4_000, ge=1, description="Most optimizer steps (paper: 400,000).")
    batch_size: int = Field(256, ge=1, description="Rows per member and step (paper: 512).")
    learning_rate: float = Field(
        1e-3, gt=0, description="Adam step size, falls linearly to zero (paper: 1e-4, constant)."
    )
    diversity: Literal["none", "paper", "repulsion"] = Field(
        "none",
        description="Diversity term: none, the paper's (its gradient only rescales cloning), or ours.",
    )
    alpha: float = Field(0.1, ge=0, description="Weight of the diversity term (paper: 0.1 of its own).")
    holdout_fraction: float = Field(0.05, gt=0, lt=1, description="Share of episodes held out.")
    evaluate_every: int = Field(500, ge=1, description="Steps between hold-out evaluations.")
    patience: int = Field(8, ge=1, description="Hold-out evaluations without a gain before stopping.")
    precision: Precision = PRECISION

    def member_weightings(self) -> list[str]:
        """The weighting of every member."""
        return [self.weightings[member % len(self.weightings)] for member in range(self.members)]


class BehaviorConfig(CloningConfig):
    """Ensemble behavior cloning."""

    @model_validator(mode="after")
    def _critics_are_not_there_yet(self) -> Self:
        late = next((name for name in self.weightings if needs_critics(name)), None)
        if late is not None:
            raise ValueError(
                f"behavior.weightings has {late}, which needs critics; expected it in extract.weightings"
            )
        return self


class ExtractConfig(StageConfig):
    """Policies extracted from the critics by weighted cloning, for the judge to choose from.

    Everything else is as for the behavior policies.
    """

    members: int = Field(6, ge=0, description="Policies; 0 extracts none (paper).")
    weightings: Annotated[tuple[Weighting, ...], Field(strict=False, min_length=1)] = Field(
        ("advantage:1*return:1", "advantage:1", "advantage:3"),
        description="As behavior.weightings, advantages included.",
    )
    steps: int = Field(4_000, ge=1, description="Most optimizer steps.")


class CriticsConfig(StageConfig):
    """Q and V of the dataset."""

    kind: Literal["iql", "sarsa"] = Field("iql", description="Expectile regression or SARSA / Monte-Carlo.")
    q_hidden: Hidden = Field((256, 256), description="Q widths (paper: 1024 x 2).")
    v_hidden: Hidden = Field((256, 256), description="V widths (paper: 512 x 3).")
    layer_norm: bool = Field(True, description="Layer normalization in Q and V (paper: none).")
    expectile: float = Field(0.7, gt=0, lt=1, description="Expectile of V (paper: 0.7, AntMaze 0.9).")
    discount: float = Field(0.99, ge=0, lt=1, description="Discount factor.")
    polyak: float = Field(0.01, gt=0, le=1, description="Rate of the target network (paper: 0.005).")
    target_every: int = Field(1, ge=1, description="Steps between target updates (paper: 2).")
    steps: int = Field(20_000, ge=1, description="Optimizer steps (paper: 2,000,000).")
    monte_carlo_steps: int = Field(
        2_000, ge=0, description="Of these, first steps that fit Monte-Carlo returns (paper: 0)."
    )
    refresh_every: int = Field(
        1_000,
        ge=1,
        description="Steps between new Monte-Carlo returns with bootstrapped timeouts (kind=sarsa).",
    )
    batch_size: int = Field(256, ge=1, description="Rows per step (paper: 512).")
    learning_rate: float = Field(5e-4, gt=0, description="Adam step size (paper: 1e-4).")
    final_learning_rate_share: float = Field(
        0.2, ge=0, le=1, description="Share of the step size left at the end of a linear fall (paper: 1)."
    )


class DynamicsConfig(StageConfig):
    """Probabilistic ensemble of transition models."""

    members: int = Field(4, ge=1, description="Models (paper: 7).")
    elites: int = Field(
        4,
        ge=1,
        description="Best models kept: improvement learns in every other one; see improve.judges (paper: 5).",
    )
    hidden: Hidden = Field((256, 256, 256), description="Widths (paper: 200 x 4, Adroit 400 x 4).")
    learning_rate: float = Field(
        2e-3, gt=0, description="Adam step size, falls linearly to zero (paper: 1e-3, Adroit 3e-4, constant)."
    )
    batch_size: int = Field(128, ge=1, description="Rows per member and step (paper: 256).")
    steps: int = Field(30_000, ge=1, description="Most optimizer steps (paper: no bound but patience).")
    holdout_fraction: float = Field(0.05, gt=0, lt=1, description="Share of episodes held out.")
    evaluate_every: int = Field(1_000, ge=1, description="Steps between hold-out evaluations.")
    patience: int = Field(
        10, ge=1, description="Hold-out evaluations without a gain before stopping (paper: 5-20)."
    )
    weight_decay: float = Field(1e-5, ge=0, description="Decoupled weight decay.")
    precision: Precision = PRECISION

    @model_validator(mode="after")
    def _elites_are_members(self) -> Self:
        if self.elites > self.members:
            raise ValueError(
                f"dynamics.elites is {self.elites}; expected at most dynamics.members, "
                f"which is {self.members}"
            )
        return self


class ImproveConfig(StageConfig):
    """Multi-step offline policy improvement behind the OPE gate."""

    members: int = Field(
        2, ge=1, description="Policies that improvement starts from: the first by the judge (paper: all 4)."
    )
    std_scale: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Std of actions in the offline phase, as a share of the clones' (paper: 1).",
    )
    advantages: Literal["model", "critic"] = Field(
        "model",
        description="PPO in the learned models, or steps along min Q - V on dataset states (the paper).",
    )
    steps: int = Field(
        60, ge=1, description="Rounds of PPO, or gradient steps with advantages=critic (paper: 10,000)."
    )
    evaluate_every: int = Field(5, ge=1, description="Steps between gate checks (paper: 100).")
    patience: int = Field(
        6, ge=1, description="Refusals in a row after which a candidate is put back (paper: never)."
    )
    batch_size: int = Field(512, ge=1, description="Rows per gradient step (paper: 512).")
    learning_rate: float = Field(1e-4, gt=0, description="Adam step size, decays to 0 (paper: 1e-4).")
    clip: float = Field(0.2, gt=0, lt=1, description="Ratio clip (paper: 0.25).")
    entropy: float = Field(0.0, ge=0, description="Entropy bonus (paper: 0).")
    max_grad_norm: float = Field(0.5, gt=0, description="Gradient norm per member (paper: 0.5).")
    judges: Literal["others", "all"] = Field(
        "others",
        description="Models that judge: those that improvement does not learn in, or all of them. Concerns "
        "advantages=model, which learns in every other model.",
    )
    rollouts: int = Field(64, ge=1, description="Environments made of models (advantages=model).")
    rollout_steps: int = Field(64, ge=1, description="Steps of each in a round (advantages=model).")
    episode_steps: int = Field(
        200, ge=1, description="Steps after which an episode in the models is cut (advantages=model)."
    )
    initial_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of these episodes that begin where recorded ones do; the others begin at any row "
        "(advantages=model).",
    )
    rollout_noise: float = Field(
        1.0, ge=0, description="Noise of these rollouts, as a share of the models' own (advantages=model)."
    )
    warmup_rounds: int = Field(2, ge=1, description="Rounds' worth of steps that only fit V at first.")
    averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Weight of what went before in the running average of a candidate over rounds, which is "
        "what the gate sees (advantages=model); 0: the newest alone.",
    )
    rollout_discount: float = Field(0.995, ge=0, lt=1, description="Discount of these rollouts.")
    gae_lambda: float = Field(0.97, ge=0, le=1, description="Lambda of their advantages.")
    epochs: int = Field(4, ge=1, description="Passes over each round (advantages=model).")
    value_hidden: Hidden = Field((64, 64), description="Widths of V (advantages=model).")
    value_learning_rate: float = Field(1e-3, gt=0, description="Adam step size of that V.")
    anchor_every: int | None = Field(
        None,
        ge=1,
        description="Steps between renewals of the policy that ratios refer to; null: only the gate "
        "renews it (the paper). Concerns advantages=critic.",
    )
    estimator: Literal["return", "amq-sum", "amq-mean"] = Field(
        "return",
        description="OPE: model return with terminal value, the paper's AM-Q (sum of Q over the horizon) or "
        "its code's (mean of Q over living states).",
    )
    acting: Literal["both", "mean"] = Field(
        "both", description="Judge mean and sampled actions, or mean actions alone (paper)."
    )
    horizon: int = Field(1000, ge=1, description="Most model steps per OPE rollout (paper: 1000).")
    starts: int = Field(64, ge=2, description="Start states per OPE estimate (paper: 512).")
    start_states: Literal["initial", "dataset"] = Field(
        "initial", description="OPE starts from first states of episodes, or from any row (paper)."
    )
    discount: float = Field(1.0, gt=0, le=1, description="Discount of estimator=return.")
    model_noise: bool = Field(
        False, description="Models draw from their distribution; else follow its mean (estimates)."
    )
    confidence: float = Field(
        0.9, ge=0.5, lt=1, description="One-sided confidence of a gain; 0.5 asks for a higher mean (paper)."
    )
    margin: float = Field(
        0.02, ge=0, description="Smallest gain, as a share of the current estimate (paper: 0, RL-100: 0.05)."
    )
    believed_gain: float = Field(
        0.5, ge=0, le=1, description="Share of a gain that counts where a track is chosen (paper: 1)."
    )
    trust: float | None = Field(
        0.75,
        gt=0,
        le=1,
        description="Models may judge where clones return in them at least this share of what was "
        "recorded, and at most as much more; null: always (paper).",
    )

    @model_validator(mode="after")
    def _gate_looks_at_least_once(self) -> Self:
        if self.evaluate_every > self.steps:
            raise ValueError(
                f"improve.evaluate_every is {self.evaluate_every}; expected at most improve.steps, which is "
                f"{self.steps} (the gate would never look)"
            )
        return self


class FinetuneConfig(StageConfig):
    """Online PPO from the improved policy."""

    env_steps: int = Field(1_000_000, ge=1, description="Environment steps (paper's curves: 1,000,000).")
    num_envs: int = Field(32, ge=1, description="Environments stepped together (paper: 1).")
    rollout_steps: int = Field(128, ge=1, description="Steps of each environment between updates.")
    epochs: int = Field(10, ge=1, description="Passes over each batch (paper: 5-30).")
    minibatch_size: int = Field(512, ge=1, description="Rows per gradient step (paper: 128).")
    actor_learning_rate: float = Field(2e-4, gt=0, description="Adam step size (paper: 1e-6 to 3e-5).")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam step size (paper: 2e-4).")
    anneal: bool = Field(True, description="Learning rates fall linearly to zero.")
    clip: float = Field(0.2, gt=0, lt=1, description="Ratio clip (paper: 0.05).")
    gae_lambda: float = Field(0.97, ge=0, le=1, description="Lambda of generalized advantages (paper: 0.95).")
    discount: float = Field(0.995, ge=0, lt=1, description="Discount factor (paper: 0.99).")
    entropy: float = Field(0.0, ge=0, description="Entropy bonus (paper: 0.01).")
    max_grad_norm: float = Field(0.5, gt=0, description="Gradient norm (paper: 0.5).")
    std_scale: float = Field(
        1.0, gt=0, le=1, description="Std of actions at the switch, as a share of the offline policy's."
    )
    target_kl: float | None = Field(0.02, gt=0, description="Stop an update's epochs beyond this KL.")
    value_hidden: Hidden = Field((64, 64), description="Widths of a refitted V.")
    critic: Literal["refit", "offline"] = Field(
        "refit", description="V: refitted to the policy, or the offline one."
    )
    warmup_steps: int = Field(16_384, ge=0, description="Environment steps that only fit V, policy fixed.")
    evaluate_every: int = Field(50_000, ge=1, description="Environment steps between evaluations.")
    evaluate_episodes: int = Field(
        20, ge=1, le=MOST_EPISODES, description="Episodes per evaluation on the curve."
    )
    averaging: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="Weight of what went before in the running average of the policy over updates, which is "
        "looked at and delivered; 0: the newest alone (paper).",
    )
    tolerated_fall: float | None = Field(
        0.1,
        ge=0,
        lt=1,
        description="Below the best so far by more than this share, and by more than noise, the learner goes "
        "back to its last good policy; null: never (paper).",
    )
    step_after_fall: float = Field(
        0.5, gt=0, le=1, description="Factor of the step size after each fall; a new best takes one back."
    )
    deliver: Literal["best", "last"] = Field(
        "best", description="Hand over the policy of the best evaluation, or the last one (paper)."
    )

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> Self:
        batch = self.num_envs * self.rollout_steps
        if self.minibatch_size > batch:
            raise ValueError(
                f"finetune.minibatch_size is {self.minibatch_size}; expected at most finetune.num_envs x "
                f"finetune.rollout_steps, which is {batch}"
            )
        if self.warmup_steps >= self.env_steps:
            raise ValueError(
                f"finetune.warmup_steps is {self.warmup_steps}; expected less than finetune.env_steps, "
                f"which is {self.env_steps}"
            )
        return self


class EvaluateConfig(StageConfig):
    """Evaluation in the simulator."""

    episodes: int = Field(50, ge=2, le=MOST_EPISODES, description="Episodes behind each reported score.")
    seed: int = Field(
        1_000_003, ge=0, description="Seed of the evaluation episodes (never the training seed)."
    )


class RunConfig(StageConfig):
    """A whole run: what every method has; each adds sections of its own."""

    title: ClassVar[str]  # of the method, for people

    method: str = Field(description="The offline-to-online method.")
    dataset: str = Field(description="Where the data comes from: minari:, d4rl:, transitions:, collect:.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where tensors live.")
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="Seconds between checkpoints of a stage; changes no result."
    )
    prepare: PrepareConfig = PrepareConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def discount(self) -> float:
        """Discount of the returns of the data."""
        raise NotImplementedError

    def holdouts(self) -> dict[str, float]:
        """Shares of episodes that are held out, by the names of their settings."""
        return {}

    @model_validator(mode="after")
    def _evaluation_has_its_own_seed(self) -> Self:
        if self.evaluate.seed == self.seed:
            raise ValueError(
                f"evaluate.seed is {self.evaluate.seed}; expected another number than seed, "
                "so that no policy is scored on the episodes it was trained on"
            )
        return self


def config_digest(config: StageConfig) -> str:
    """SHA-256 of the canonical JSON: equal settings give equal digests, wherever they came from."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
