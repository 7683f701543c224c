"""Fitted Q evaluation (Le et al., 2019): what policies are worth, by values learned from the rows alone.

No model of the world is asked, so its faults are others than those of rollouts in learned models: what both
say alike is the better founded. By itself it is no judge (Fu et al., 2021): values of actions that no row
has are guesses.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import with_returns
from unio4_lib.learning.q_ensemble import QEnsemble
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.nets.policy import Policy
from unio4_lib.settings.fqe import FqeConfig


class FittedEvaluation:
    """Values of the mean actions of P policies of any kind, several of each, all of them side by side.

    Networks are in the order of the policies, and those of one policy lie together: [P * critics, ...].
    """

    def __init__(
        self, policies: Sequence[Policy], data: OfflineData, config: FqeConfig, *, discount: float, seed: int
    ) -> None:
        self.policies, self.data, self.config, self.discount = policies, data, config, discount
        self.count, device = sum(policy.spec.members for policy in policies), data.observations.device
        generator = torch.Generator().manual_seed(seed)
        members = self.count * config.critics
        self.q = QEnsemble(data, members, config.hidden, layer_norm=True, generator=generator).to(device)
        group = Group([self.q.q], config.learning_rate)
        self.updates = Updates({"fqe": group}, [(self.q.slow, self.q.q)], config.polyak)
        self.draws = torch.Generator(device).manual_seed(seed + 1)
        self.fitting = round(config.monte_carlo_share * config.steps)

    def step(self) -> Metrics:
        place = torch.randint(
            len(self.data), (self.config.batch_size,), generator=self.draws, device=self.draws.device
        )
        batch = self.data.rows(place)
        if self.updates.groups["fqe"].taken < self.fitting:
            batch = with_returns(batch)
        metrics = self.updates.step({"fqe": self.q.errors(batch, self.targets(batch)).sum(dim=0)})
        self.updates.follow()
        return metrics

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """What each Q should be [P * critics, B]: each by its own slow copy, as its own policy goes on."""
        states = batch.next_observations
        following = self.q.slow_values(*self.pairs(states))
        return batch.rewards + self.discount * (1.0 - batch.terminals) * following

    def pairs(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """For each Q the observations [B, D], and what its policy does there [P * critics, B, A]."""
        means = torch.cat([policy.distribution(observations).mean for policy in self.policies])
        actions = means.clamp(-1.0, 1.0).repeat_interleave(self.config.critics, dim=0)
        return observations.expand(len(actions), *observations.shape), actions

    @torch.no_grad()
    def estimate(self) -> Tensor:
        """Discounted returns from the starts of the data [P, critics], in environment units."""
        values = self.q.values(*self.pairs(self.data.observations[self.data.starts])).mean(dim=1)
        return self.data.reward_unit * values.view(self.count, self.config.critics)

    def evaluate(self) -> Metrics:
        return {"fqe/value": self.estimate().mean(dim=1)}

    def finished(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        kept = {"q": self.q.state_dict(), "updates": self.updates.state_dict()}
        return kept | {"draws": self.draws.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q.load_state_dict(state["q"])
        self.updates.load_state_dict(state["updates"])
        self.draws.set_state(state["draws"])
