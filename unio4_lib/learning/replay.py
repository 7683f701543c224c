"""What off-policy learners train on: the rows of the dataset, and a ring of rows from the environment."""

from typing import Any, Literal

import torch
from torch import Tensor

from unio4_lib.learning.offline_data import Batch, OfflineData

Mixing = Literal["union", "balanced", "online"]


class Replay:
    """Minibatches of old and new rows.

    ``mixing`` says how many of a batch are new: as many as there are among all rows (union), half of them
    (balanced), or all (online). Counts are fixed within a batch, rows are drawn at random. Until there are
    new rows, all are old ones.
    """

    def __init__(self, data: OfflineData, capacity: int, mixing: Mixing) -> None:
        self.data, self.capacity, self.mixing = data, capacity, mixing
        self.added = 0  # rows so far, also those that the ring has lost since
        self.ring = Batch(*(part.new_zeros(capacity, *part.shape[1:]) for part in data.rows(data.starts[:1])))

    @property
    def fresh(self) -> int:
        """New rows that are there."""
        return min(self.added, self.capacity)

    def add(self, rows: Batch) -> None:
        """Put new rows [n, ...] in place of the oldest ones."""
        count = len(rows.rewards)
        place = (torch.arange(count, device=rows.rewards.device) + self.added) % self.capacity
        for kept, new in zip(self.ring, rows, strict=True):
            kept[place] = new
        self.added += count

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A minibatch; the old rows come first."""
        new = self.new_share(size)
        old = self.data.rows(_draw(len(self.data), size - new, generator))
        if new == 0:
            return old
        place = _draw(self.fresh, new, generator)
        return Batch(*(torch.cat([one, part[place]]) for one, part in zip(old, self.ring, strict=True)))

    def new_share(self, size: int) -> int:
        """How many rows of a batch are new ones."""
        if self.fresh == 0:
            return 0
        if self.mixing == "union":
            return round(size * self.fresh / (len(self.data) + self.fresh))
        return size // 2 if self.mixing == "balanced" else size

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added, "ring": [part[: self.fresh].clone() for part in self.ring]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        for kept, saved in zip(self.ring, state["ring"], strict=True):
            kept[: self.fresh] = saved


def _draw(rows: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(rows, (count,), generator=generator, device=generator.device)
