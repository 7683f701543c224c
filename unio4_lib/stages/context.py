"""What all stages of a process share: the store, the cache, and what they hold of it."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.ref import ARTIFACTS, ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.artifacts.store import Store, hold, open_store
from unio4_lib.errors import InputError
from unio4_lib.learning.journal import Preemption
from unio4_lib.progress import Reporter
from unio4_lib.tracking.tracker import NullTracker, Tracker

CACHE_VARIABLE = "UNIO4_CACHE"
SPOOL_VARIABLE = "UNIO4_SPOOL"  # set where one process delivers the numbers of all stages; none for nowhere
WORK, TRACKING = "work", "tracking"  # in the cache, beside the copies of artifacts
RUN_KEY_VARIABLE = "UNIO4_RUN_KEY"  # what identifies the pipeline run that a stage belongs to

Value = TypeVar("Value")


def default_cache() -> Path:
    """Where this machine keeps copies of artifacts, local checkpoints and what is being made."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unio4"


class DamagedArtifact(InputError):  # noqa: N818 - reads as a statement of what happened
    """An artifact that is needed is missing or not what was published."""

    def __init__(self, ref: ArtifactRef, error: InputError) -> None:
        super().__init__(str(error))
        self.ref = ref


class StageContext:
    """The surroundings of stages. As a context manager it lets go of all artifacts at the end.

    ``artifact_root`` is a folder or ``s3://bucket/prefix``; ``cache`` a folder of this machine that may be
    lost at any time.
    """

    def __init__(
        self,
        artifact_root: str | os.PathLike[str],
        *,
        reporter: Reporter | None = None,
        tracker: Tracker | None = None,
        cache: Path | None = None,
        reuse: bool = True,
        preemption: Preemption | None = None,
    ) -> None:
        self.store: Store = open_store(artifact_root)
        self.reporter = reporter if reporter is not None else Reporter(None)
        self.tracker: Tracker = tracker if tracker is not None else NullTracker()
        self.reuse, self.preemption = reuse, preemption or Preemption()
        place = (cache if cache is not None else default_cache()).absolute()
        self.cache, self.work = Cache(place / ARTIFACTS), place / WORK
        self._held: dict[str, Path] = {}
        self._made: dict[str, Any] = {}
        self._stack = ExitStack()
        self._lock = threading.RLock()

    def __enter__(self) -> "StageContext":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._held.clear()
        self._made.clear()

    def hold(self, ref: ArtifactRef) -> Path:
        """The verified local folder of an artifact; it stays until the context ends."""
        with self._lock:
            if ref.digest not in self._held:
                store = self.store if ref.root == self.store.uri else open_store(ref.root)
                try:
                    self._held[ref.digest] = self._stack.enter_context(hold(store, ref, self.cache))
                except StoreError:
                    raise
                except InputError as error:
                    raise DamagedArtifact(ref, error) from error
            return self._held[ref.digest]

    def once(self, key: str, make: Callable[[], Value]) -> Value:
        """What was made under this key, made now if it is the first time; stages side by side share it."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            made: Value = self._made[key]
            return made
