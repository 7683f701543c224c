"""Early stop for ensembles: every member keeps its own best weights."""

from typing import Any

import torch
from torch import Tensor, nn

RELATIVE_GAIN = 1e-3  # a smaller gain than this share of the loss's size does not count as one


class BestMembers:
    """Best weights and loss of each member of a stacked module, and how long ago they were found."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self.module, self.patience = module, patience
        first = next(module.parameters())
        self.losses = torch.full((first.shape[0],), torch.inf, device=first.device)
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.stale = 0  # evaluations since any member improved

    @torch.no_grad()
    def update(self, losses: Tensor) -> None:
        """Take over the weights of the members whose loss [E] has fallen."""
        better = losses < self.losses
        margin = RELATIVE_GAIN * self.losses.abs().nan_to_num(posinf=0.0)
        worthwhile = bool((losses < self.losses - margin).any())
        self.losses = torch.where(better, losses, self.losses)
        for name, parameter in self.module.named_parameters():
            mask = better.view(-1, *([1] * (parameter.dim() - 1)))
            self.weights[name] = torch.where(mask, parameter, self.weights[name])
        self.stale = 0 if worthwhile else self.stale + 1

    def exhausted(self) -> bool:
        """Whether no member has improved for ``patience`` evaluations."""
        return self.stale >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Put the best weights into the module."""
        if torch.isinf(self.losses).all():
            return  # nothing was ever evaluated: the weights are the best there are
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "weights": self.weights, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.weights, self.stale = state["losses"], dict(state["weights"]), state["stale"]
