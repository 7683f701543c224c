"""What off-policy learners train on: the rows of the dataset, and a ring of rows from the environment."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.settings.offpolicy import Mixing

SHARES = {"balanced": 0.5, "online": 1.0}
NUMBERS = ("added", "together", "owed", "made_share", "made_owed", "recent_chance", "recent_rows")  # kept
UNKNOWN_RETURN = -torch.inf  # of a new row: its episode may not be over


class Fresh(NamedTuple):
    """New rows: one step of n environments, or the whole ring."""

    observations: Tensor  # [n, D] normalized
    actions: Tensor  # [n, A] in the unit box
    rewards: Tensor  # [n] scaled
    next_observations: Tensor  # [n, D] the true successors
    terminals: Tensor  # [n] float: 1 where the task ended, not where only time did
    ended: Tensor  # [n] float: 1 where the episode ended, for whatever reason


class Replay:
    """Minibatches of old and new rows.

    ``mixing`` says how many of a batch are new: as many as there are among all rows (union), half of them
    (balanced), all (online), or a share. Parts of a row are saved up for the next batch. Rows are drawn at
    random, alike or by ``weigh``. Until there are new rows, all are old ones. A share of each batch may be
    rows that nobody has seen but a model has made (``put_made``); the others are mixed as without them.
    Some minibatches may be of the newest rows alone (``prefer_recent``).
    """

    def __init__(self, data: OfflineData, capacity: int, mixing: Mixing | float) -> None:
        self.data, self.capacity = data, capacity
        self.share = SHARES.get(mixing) if isinstance(mixing, str) else mixing  # None: the union's
        self.added = 0  # rows so far, also those that the ring has lost since
        self.together = 1  # rows that are added at once: so far apart are two steps of one environment
        self.owed = 0.0  # part of a new row that earlier batches have not had
        one, flags = data.rows(data.starts[:1]), data.rewards.new_zeros(capacity)
        columns = [part.new_zeros(capacity, *part.shape[1:]) for part in one[: len(Fresh._fields) - 1]]
        self.ring = Fresh._make([*columns, flags])
        self.weights: tuple[Tensor, Tensor] | None = None  # of old rows [N] and of the ring's [capacity]
        self._cumulated: tuple[Tensor, Tensor] | None = None
        self.made: Batch | None = None
        self.made_share, self.made_owed = 0.0, 0.0
        self.recent_chance, self.recent_rows = 0.0, 0

    @property
    def fresh(self) -> int:
        """New rows that are there."""
        return min(self.added, self.capacity)

    def add(self, rows: Fresh) -> None:
        """Put new rows [n, ...] in place of the oldest ones, one for each environment in their order."""
        self.together = len(rows.rewards)
        place = (torch.arange(self.together, device=rows.rewards.device) + self.added) % self.capacity
        for kept, new in zip(self.ring, rows, strict=True):
            kept[place] = new
        self.added += self.together
        if self.weights is not None:
            self.weights[1][place] = self.weights[0].mean()  # they are drawn like a row of the data
            self._cumulated = None

    def weigh(self, old: Tensor, new: Tensor) -> None:
        """From now on rows are drawn in proportion to weights [N] and [fresh]."""
        ring = new.new_zeros(self.capacity)
        ring[: self.fresh] = new
        self.weights, self._cumulated = (old.clone(), ring), None

    def put_made(self, rows: Batch, share: float) -> None:
        """From now on these rows [n] of a model, and no earlier ones, are a share of minibatches."""
        self.made, self.made_share = rows, share

    def prefer_recent(self, chance: float, rows: int) -> None:
        """From now on a minibatch is, by this chance, of the newest so many rows alone.

        That begins when half of them are there. Rows that a model has made go with their like: as recent
        ones with the newest, as others with all that was seen.
        """
        self.recent_chance, self.recent_rows = chance, rows

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A minibatch; the old rows come first, those that are made last."""
        recent = self._is_recent(generator)
        seen = self._recent if recent else self._seen
        if self.made is None:
            return seen(size, generator)
        self.made_owed += size * self.made_share
        count = min(size, int(self.made_owed))
        self.made_owed -= count
        known, place = seen(size - count, generator), self._made_places(count, recent, generator)
        return Batch(*(torch.cat([part, made[place]]) for part, made in zip(known, self.made, strict=True)))

    def _is_recent(self, generator: torch.Generator) -> bool:
        """Whether the next minibatch is of the newest rows alone."""
        if self.recent_chance == 0 or 2 * self.fresh < self.recent_rows:
            return False
        return bool(torch.rand((), generator=generator, device=generator.device) < self.recent_chance)

    def _recent(self, size: int, generator: torch.Generator) -> Batch:
        """The newest rows, alike."""
        newest = min(self.fresh, self.recent_rows)
        age = torch.randint(newest, (size,), generator=generator, device=generator.device)
        rows = self.fresh_rows((self.added - 1 - age) % self.capacity)
        return rows._replace(recent=torch.ones_like(rows.rewards))

    def _made_places(self, count: int, recent: bool, generator: torch.Generator) -> Tensor:
        """Made rows; where minibatches are of two kinds, those of the same kind, if there are any."""
        assert self.made is not None
        pool = None
        if self.recent_chance > 0:
            pool = (self.made.recent == float(recent)).nonzero()[:, 0]
        size = len(self.made.rewards) if pool is None or len(pool) == 0 else len(pool)
        place = torch.randint(size, (count,), generator=generator, device=generator.device)
        return place if pool is None or len(pool) == 0 else pool[place]

    def _seen(self, size: int, generator: torch.Generator) -> Batch:
        """Old and new rows."""
        new = self._new_rows(size)
        if new == 0:
            return self.data.rows(self._draw(0, size, generator))
        fresh = self.fresh_rows(self._draw(1, new, generator))
        if new == size:
            return fresh
        old = self.data.rows(self._draw(0, size - new, generator))
        return Batch(*(torch.cat(pair) for pair in zip(old, fresh, strict=True)))

    def fresh_rows(self, place: Tensor) -> Batch:
        """Rows of the ring at places [n]."""
        ring, following = self.ring, (place + self.together) % self.capacity
        age = (self.added - 1 - place) % self.capacity  # 0 is the newest row
        followed = (1.0 - ring.ended[place]) * (age >= self.together)
        unknown = torch.full_like(followed, UNKNOWN_RETURN)
        columns = [part[place] for part in ring[:-1]]
        none = torch.zeros_like(followed)
        return Batch._make([*columns, unknown, ring.actions[following], followed, none])

    def new_share(self) -> float:
        """Share of new rows in minibatches, among those that somebody has seen."""
        if self.fresh == 0:
            return 0.0
        if self.share is not None:
            return self.share
        old, new = self._masses()
        return new / (old + new)

    def _new_rows(self, size: int) -> int:
        self.owed += size * self.new_share()
        count = min(size, int(self.owed))
        self.owed -= count
        return count

    def _masses(self) -> tuple[float, float]:
        """Weights of all old and of all new rows together."""
        if self.weights is None:
            return float(len(self.data)), float(self.fresh)
        old, new = self._cumulate()
        return float(old[-1]), float(new[-1])

    def _draw(self, part: int, count: int, generator: torch.Generator) -> Tensor:
        rows, device = (len(self.data), self.fresh)[part], generator.device
        if self.weights is None:
            return torch.randint(rows, (count,), generator=generator, device=device)
        cumulated = self._cumulate()[part]
        chance = torch.rand(count, generator=generator, device=device, dtype=cumulated.dtype)
        return torch.searchsorted(cumulated, chance * cumulated[-1], right=True).clamp(max=rows - 1)

    def _cumulate(self) -> tuple[Tensor, Tensor]:
        """Running sums of the weights, made once after they have changed."""
        assert self.weights is not None
        if self._cumulated is None:
            old, new = self.weights[0], self.weights[1][: max(1, self.fresh)]
            self._cumulated = old.double().cumsum(0), new.double().cumsum(0)
        return self._cumulated

    def state_dict(self) -> dict[str, Any]:
        weights = None if self.weights is None else [part.clone() for part in self.weights]
        return {
            "ring": [part[: self.fresh].clone() for part in self.ring],
            "weights": weights,
            "made": None if self.made is None else list(self.made),
            **{name: getattr(self, name) for name in NUMBERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in NUMBERS:
            setattr(self, name, state[name])
        for kept, saved in zip(self.ring, state["ring"], strict=True):
            kept[: self.fresh] = saved
        weights, made, device = state["weights"], state["made"], self.ring.rewards.device
        self.weights = (
            None if weights is None else (weights[0].to(device, copy=True), weights[1].to(device, copy=True))
        )
        self.made = None if made is None else Batch._make(part.to(device, copy=True) for part in made)
        self._cumulated = None
