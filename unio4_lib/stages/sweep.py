"""What became of the members of a sweep: each leaves a small record in the store, whatever happened to it."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import Store

SWEEPS = "sweeps"  # key prefix below a root


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    sweep: str
    dataset: str
    seed: int
    method: str

    @property
    def name(self) -> str:
        """What people call it; the seed first, because lists cut what is long."""
        return f"{self.sweep} seed {self.seed} {self.method} {self.dataset}"

    @property
    def digest(self) -> str:
        """A source may hold any character, a key must not."""
        return hashlib.sha256(f"{self.dataset}\n{self.seed}\n{self.method}".encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """Where its record is."""
        return f"{SWEEPS}/{self.sweep}/{self.digest}.json"


@dataclass(frozen=True)
class Result:
    """Of a member: its report, or the stage that failed and the line it said."""

    report: ArtifactRef | None = None
    config: dict[str, Any] = field(default_factory=dict)
    failure: str = "no result: it was stopped, or has not run"


def begin(store: Store, member: Member) -> None:
    """Forget what an earlier run of the same name left."""
    store.delete_bytes(member.key)


def record_failure(store: Store, member: Member, failure: str) -> None:
    """The member failed; the first stage that says so is right."""
    if store.get_bytes(member.key) is None:
        store.put_bytes(member.key, json.dumps({"failure": failure}).encode())


def record_report(store: Store, member: Member, ref: ArtifactRef, config: dict[str, Any]) -> None:
    """The member came to its end."""
    store.put_bytes(member.key, json.dumps({"report": ref.model_dump(), "config": config}).encode())


def result_of(store: Store, member: Member) -> Result:
    """What is known about a member."""
    data = store.get_bytes(member.key)
    return Result() if data is None else _read(data)


def results_in(store: Store, sweep: str) -> list[Result]:
    """What is known of all members that left something."""
    kept = (store.get_bytes(one.key) for one in store.list_bytes(f"{SWEEPS}/{sweep}"))
    return [_read(data) for data in kept if data is not None]


def _read(data: bytes) -> Result:
    found = json.loads(data)
    if "report" in found:
        return Result(ArtifactRef.model_validate(found["report"]), found["config"], "")
    return Result(failure=found["failure"])
