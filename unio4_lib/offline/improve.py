"""Multi-step offline policy improvement: clipped steps, and a gate in front of every replacement."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.nets.policy import GaussianPolicy, copy_members, stack_policies
from unio4_lib.offline.advantages import AdvantageSource, Minibatch
from unio4_lib.offline.gate import Decision, decide
from unio4_lib.offline.ope import Calibration, PolicyEvaluator
from unio4_lib.training.loop import Metrics

SELECTION_FACTOR = 4  # times as many starts behind the final choice as behind a gate check


@dataclass(frozen=True)
class GateEntry:
    """One line of the decision log."""

    step: int
    member: int
    candidate: float
    current: float
    difference: float
    stderr: float
    accepted: bool


def clipped_objective(
    policy: GaussianPolicy, batch: Minibatch, clip: float, entropy: float
) -> tuple[Tensor, Metrics]:
    """Sum over members of -mean min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) - entropy H.

    ratio = pi_i(a|s) / anchor_i(a|s). (The paper's eq. 7 prints it upside down; its code does not.)
    """
    gaussian = policy.distribution(batch.observations)
    log_ratio = gaussian.log_prob(batch.actions) - batch.log_probs
    ratio = log_ratio.exp()
    surrogate = torch.minimum(
        ratio * batch.advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * batch.advantages
    )
    loss = -surrogate.mean(dim=1).sum()
    if entropy > 0:
        loss = loss - entropy * gaussian.entropy().mean(dim=1).sum()
    with torch.no_grad():
        metrics = {
            "improve/kl": (ratio - 1.0 - log_ratio).mean(dim=1),
            "improve/clip_fraction": ((ratio - 1.0).abs() > clip).float().mean(dim=1),
        }
    return loss, metrics


@torch.no_grad()
def clip_gradients(policy: GaussianPolicy, max_norm: float) -> None:
    """Limit the gradient norm of each member on its own, as if it were a network alone."""
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0)
    factor = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *([1] * (gradient.dim() - 1))))


class ImproveTrainer:
    """Improves E candidates side by side; ``accepted`` only ever changes through the gate.

    A refused candidate goes on for ``patience`` checks, because improvement is not monotone; then it is
    put back to its accepted policy. What is delivered is an accepted policy, never the last iterate.

    What the gate lets pass must have gained more in all than the models are known to be wrong by, over its
    clone and over the return that was recorded. Models that invent falls of the clones would else reward
    any change that avoids these: up to the recorded return such a gain only repairs what they got wrong.
    """

    def __init__(
        self,
        behavior: GaussianPolicy,
        source: AdvantageSource,
        evaluator: PolicyEvaluator,
        config: ImproveConfig,
        *,
        seed: int,
    ) -> None:
        self.config, self.source, self.evaluator, self.seed = config, source, evaluator, seed
        self.accepted = copy.deepcopy(behavior).requires_grad_(False)
        self.candidate = copy.deepcopy(behavior).requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.candidate.parameters(), lr=config.learning_rate, fused=True)
        self.refusals = torch.zeros(behavior.spec.members, dtype=torch.int64)
        self.gained = torch.zeros(
            behavior.spec.members, device=behavior.observation_mean.device
        )  # over the clone, by the gate's paired differences
        self.calibration = self._calibrate(behavior) if config.calibrate else None
        self.log: list[GateEntry] = []
        self.steps = 0

    def _calibrate(self, behavior: GaussianPolicy) -> Calibration | None:
        starts = SELECTION_FACTOR * self.config.starts
        return self.evaluator.calibrate(behavior, seed=self.seed - 2, starts=starts)

    def step(self) -> Metrics:
        batch = self.source.next(self.candidate)
        loss, metrics = clipped_objective(self.candidate, batch, self.config.clip, self.config.entropy)
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * (
            1.0 - self.steps / self.config.steps
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.candidate, self.config.max_grad_norm)
        self.optimizer.step()
        self.steps += 1
        return metrics

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        """The gate: score candidates and accepted policies together and replace what is beaten."""
        members = self.accepted.spec.members
        both = stack_policies([self.candidate, self.accepted])
        # Fresh starts and noise at every check: a draw that favored a policy once is not kept.
        estimates = self.evaluator.estimate(both, seed=self.seed + self.steps)
        decision = decide(estimates[:members], estimates[members:], self.config, models=self.evaluator.models)
        decision = self._beyond_doubt(decision)
        self._record(decision)
        self.gained = torch.where(decision.accepted, self.gained + decision.difference, self.gained)
        if decision.accepted.any():
            copy_members(self.candidate, self.accepted, decision.accepted)
            self.source.renew(decision.accepted, self.candidate)
        self.refusals = torch.where(decision.accepted.cpu(), 0, self.refusals + 1)
        exhausted = self.refusals >= self.config.patience
        if exhausted.any():
            self._put_back(exhausted)
        best = torch.where(decision.accepted, decision.candidate, decision.current)
        return {"improve/estimate": best, "improve/difference": decision.difference}

    def _beyond_doubt(self, decision: Decision) -> Decision:
        """Of what the gate would accept, what has gained more than the models are wrong by."""
        if self.calibration is None:
            return decision
        gain = self.gained + decision.difference
        if self.config.start_states == "initial":
            gain = torch.minimum(gain, decision.candidate - self.calibration.recorded)
        return decision._replace(accepted=decision.accepted & (gain > self.calibration.error))

    def _put_back(self, members: Tensor) -> None:
        copy_members(self.accepted, self.candidate, members)
        for state in self.optimizer.state.values():
            # Momentum belongs to the way that is given up. The second moment stays: members share Adam's
            # step count, so zeroing it would enlarge the next hundred steps.
            state["exp_avg"][members.to(state["exp_avg"].device)] = 0.0
        self.source.renew(members, self.candidate)
        self.refusals[members] = 0

    def _record(self, decision: Decision) -> None:
        columns = [field.tolist() for field in decision]
        for member, row in enumerate(zip(*columns, strict=True)):
            self.log.append(GateEntry(self.steps, member, *row))

    def finished(self) -> bool:
        return False

    def choose(self) -> tuple[int, Tensor]:
        """The member to hand on, by OPE alone, and the estimates [E] of all.

        Members that the gate's own rule cannot tell from the best count as equal. Of those, the one with
        the most accepted replacements comes first: each was a proven gain, while a first place among
        equals is the models' opinion.
        """
        starts = SELECTION_FACTOR * self.config.starts
        estimates = self.evaluator.estimate(self.accepted, seed=self.seed - 1, starts=starts)
        means = estimates.mean(dim=1)
        best = estimates[means.argmax()].expand_as(estimates)
        behind = decide(best, estimates, self.config, models=self.evaluator.models).accepted.tolist()
        gains = Counter(entry.member for entry in self.log if entry.accepted)
        equal = [member for member, worse in enumerate(behind) if not worse]
        return max(equal, key=lambda member: (gains[member], float(means[member]))), means

    def state_dict(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted.state_dict(),
            "candidate": self.candidate.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "source": self.source.state_dict(),
            "refusals": self.refusals,
            "gained": self.gained,
            "log": [vars(entry) for entry in self.log],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accepted.load_state_dict(state["accepted"])
        self.candidate.load_state_dict(state["candidate"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.source.load_state_dict(state["source"])
        self.refusals = state["refusals"]
        self.gained = state["gained"]
        self.log = [GateEntry(**entry) for entry in state["log"]]
        self.steps = state["steps"]
