"""PEX (Zhang et al., ICLR 2023): online a new policy learns beside the offline one, which stays as it is."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group
from unio4_lib.methods.iql import ImplicitQ, IqlConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.nets.kinds import ExpandedPolicy
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.offpolicy import BalancedTuneConfig


class PexConfig(IqlConfig):
    """The learner."""

    inverse_temperature: float = Field(
        10.0, ge=0, description="Factor of values in the choice between both policies (code: 10)."
    )
    start: Literal["new", "offline"] = Field(
        "new",
        description="Whether the new policy knows nothing at first (code), or what the offline one does.",
    )
    cloned: Literal["chosen", "rows"] = Field(
        "chosen",
        description="Actions that the new policy clones: those chosen of both (code), or the rows' own.",
    )


class PexRun(OffPolicyRun):
    """IQL offline, then online with a second policy."""

    title: ClassVar[str] = "PEX"

    method: Literal["pex"] = Field("pex", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    pex: PexConfig = PexConfig()


class Pex(ImplicitQ):
    """IQL whose policy gets another one beside it when it goes online; values choose between both."""

    settings: PexConfig
    policy: ExpandedPolicy

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        self.policy.values = self.critics.q  # the policy chooses by what is learned
        self.online = False
        self.new_share = torch.zeros((), device=self.draws.device)  # of the newest actions, by chance

    def shape(self, spec: PolicySpec) -> PolicySpec:
        return replace(spec, kind="expanded", layer_norm=self.settings.layer_norm)

    def groups(self, offline_updates: int) -> dict[str, Group]:
        """Cloning moves the new policy alone."""
        found = super().groups(offline_updates)
        whole = found["policy"]
        return found | {"policy": Group(self.learning(), whole.learning_rate, whole.share)}

    def learning(self) -> list[torch.nn.Parameter]:
        """What moves of the policy."""
        fixed = ("old.", "values.")
        return [part for name, part in self.policy.named_parameters() if not name.startswith(fixed)]

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        return metrics | {"learner/new_share": self.new_share} if self.online else metrics

    def policy_loss(self, batch: Batch, advantages: Tensor) -> Tensor:
        """Cloning [B] of the rows; online of what would be chosen there, by how much better that is."""
        observations, actions = batch.observations, batch.actions
        if self.online and self.settings.cloned == "chosen":
            actions = self.choose(observations, self.normal(*actions.shape))
            with torch.no_grad():
                values = self.critics.values(observations)
                advantages = self.critics.target_min_q(observations, actions) - values
        return self.cloning(self.policy.new(observations), actions, self.settings.temperature * advantages)

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.choose(observations, noise) if self.online else super().explore(observations, noise)

    @torch.no_grad()
    def choose(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, A]: the old policy's or a sample of the new one, each as likely as it is good."""
        old = self.policy.old.distribution(observations).mean[0]
        new = self.policy.new(observations).sample(noise)[0].clamp(-1.0, 1.0)
        gains = self.critics.min_q(observations, new) - self.critics.min_q(observations, old)
        chances = torch.sigmoid(self.settings.inverse_temperature * gains)
        self.new_share = chances.mean()
        drawn = torch.rand(len(chances), generator=self.draws, device=self.draws.device)
        return torch.where((drawn < chances)[:, None], new, old)

    def go_online(self) -> None:
        """The policy stays as it is, and another one begins to learn."""
        self.online = True
        if self.settings.start == "offline":
            self.policy.expand(self.policy)  # it goes on from there, with Adam's averages
        else:
            seed = torch.randint(2**31, (), generator=self.draws, device=self.draws.device)
            generator = torch.Generator().manual_seed(int(seed))
            self.policy.expand(GaussianPolicy(self.policy.old.spec, generator=generator))
            self.updates.groups["policy"] = Group(self.learning(), self.settings.learning_rate)


ROOM = OffPolicy(
    "pex",
    "PEX on IQL: the offline policy stays, a new one learns beside it, and values choose between both",
    PexRun,
    Pex,
    __name__,
    composite=True,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
