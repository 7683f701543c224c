"""Multi-step offline improvement: a learner makes candidates, a gate stands before every replacement."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from unio4_lib.judging.gate import Decision, decide
from unio4_lib.judging.ope import PolicyEvaluator
from unio4_lib.learning.loop import Metrics
from unio4_lib.methods.unio4.learners import Learner
from unio4_lib.nets.policy import GaussianPolicy, copy_members, stack_policies
from unio4_lib.settings.model import ImproveConfig


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
    refusal: str | None  # the test that refused
    acting: dict[str, list[float]]  # estimates of candidate and current by each way of acting


class ImproveTrainer:
    """Improves E policies side by side; ``accepted`` only ever changes through the gate.

    A refused candidate goes on for ``patience`` checks, because improvement is not monotone; then it is
    put back to its accepted policy. What is delivered is an accepted policy, never the last iterate.
    """

    def __init__(
        self,
        start: GaussianPolicy,
        learner: Learner,
        evaluator: PolicyEvaluator,
        config: ImproveConfig,
        *,
        seed: int,
    ) -> None:
        self.config, self.learner, self.evaluator, self.seed = config, learner, evaluator, seed
        self.accepted = copy.deepcopy(start).requires_grad_(False)
        self.refusals = torch.zeros(start.spec.members, dtype=torch.int64, device="cpu")
        self.log: list[GateEntry] = []
        self.steps = 0

    def step(self) -> Metrics:
        self.steps += 1
        return self.learner.step()

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        """The gate: score candidates and accepted policies together and replace what is beaten."""
        members = self.accepted.spec.members
        candidates = self.learner.candidates()
        both = stack_policies([candidates, self.accepted])
        # Fresh starts and noise at every check: a draw that favored a policy once is not kept.
        estimates = self.evaluator.estimate(both, seed=self.seed + self.steps)
        decision = decide(estimates[:, :members], estimates[:, members:], self.config)
        self._record(decision)
        accepted = decision.accepted
        if accepted.any():
            copy_members(candidates, self.accepted, accepted)
            self.learner.keep(accepted)
        self.refusals = torch.where(accepted.cpu(), 0, self.refusals + 1)
        exhausted = self.refusals >= self.config.patience
        if exhausted.any():
            self.learner.put_back(exhausted, self.accepted)
            self.refusals[exhausted] = 0
        best = torch.where(accepted, decision.candidate.mean(dim=0), decision.current.mean(dim=0))
        return {"improve/estimate": best, "improve/difference": decision.difference}

    def _record(self, decision: Decision) -> None:
        ways = self.evaluator.ways
        for member, refusal in enumerate(decision.refusals):
            candidate, current = decision.candidate[:, member], decision.current[:, member]
            pairs = torch.stack([candidate, current], dim=1).tolist()
            self.log.append(
                GateEntry(
                    self.steps,
                    member,
                    float(candidate.mean()),
                    float(current.mean()),
                    float(decision.difference[member]),
                    float(decision.stderr[member]),
                    refusal is None,
                    refusal,
                    dict(zip(ways, pairs, strict=True)),
                )
            )

    def finished(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted.state_dict(),
            "learner": self.learner.state_dict(),
            "refusals": self.refusals,
            "log": [asdict(entry) for entry in self.log],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accepted.load_state_dict(state["accepted"])
        self.learner.load_state_dict(state["learner"])
        self.refusals = state["refusals"]
        self.log = [GateEntry(**entry) for entry in state["log"]]
        self.steps = state["steps"]


def rank(estimates: Tensor) -> list[int]:
    """Policies from the best to the worst by estimates [W, P, S], all ways of acting counted alike."""
    return torch.argsort(estimates.mean(dim=(0, 2)), descending=True, stable=True).tolist()
