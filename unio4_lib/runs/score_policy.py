"""The score of a policy from wherever it is: a run, a folder, an artifact."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.integrity import check_folder, read_manifest
from unio4_lib.artifacts.manifest import MANIFEST_FILE
from unio4_lib.artifacts.ref import ARTIFACTS, ArtifactRef
from unio4_lib.artifacts.store import hold, open_store
from unio4_lib.errors import InputError
from unio4_lib.learning.evaluation import normalized_score, reference_scores
from unio4_lib.learning.threads import torch_threads
from unio4_lib.nets.files import load_policy
from unio4_lib.progress import Reporter
from unio4_lib.sources.given_policy import of_run
from unio4_lib.stages.context import default_cache
from unio4_lib.stages.step import POLICY
from unio4_lib.stages.task import Task, check_sizes
from unio4_lib.stages.training import score

log = logging.getLogger(__name__)


def evaluate_policy(
    place: str,
    *,
    episodes: int,
    seed: int,
    sampled: bool | None = None,
    console: Console | None = None,
    warn: Callable[[str], None] = log.warning,
) -> dict[str, Any]:
    """Score the policy of a place; of a run's folder, the last policy that it made.

    Unless ``sampled`` says otherwise it acts as it was delivered: by its mean action or by sampled ones.
    ``warn`` is told of code of others before it runs, also where progress is shown to nobody.
    """
    with policy_folder(place) as folder:
        policy, facts = load_policy(folder)
    name = str(folder) if Path(place).is_dir() else place
    task = _task(facts, name)
    reporter = Reporter(console)
    if ":" in task.env_id:
        module = task.env_id.rpartition(":")[0]
        warn(f"note: imports and runs module {module}, which policy.json names")
    if sampled is None:
        sampled = facts.get("acts") == "sampled"
    try:
        sim = task.sim(1)
        check_sizes(sim, "the policy", policy.spec.observation_dim, policy.spec.action_dim)
        sim.close()
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    reporter.say(
        f"{name}: {episodes} episodes of {task.env_id}, {'sampled actions' if sampled else 'mean action'}"
    )
    with torch_threads(1):  # as in the run: equal seeds give equal scores
        stats = score(task, policy, episodes, seed, sampled=sampled)
    references = reference_scores(task.env_id)
    mean = float(stats.mean)
    return {
        "policy": name,
        "env_id": task.env_id,
        "mean_return": mean,
        "stderr": float(stats.stderr),
        "interval": list(stats.bootstrap_interval()),
        "normalized": None if references is None else normalized_score(mean, *references),
        "episodes": len(stats.returns),
        "sampled": sampled,
    }


def _task(facts: dict[str, Any], name: str) -> Task:
    """The environment that a policy names."""
    if "env_id" not in facts:
        raise InputError(f"{name}: the policy does not say its environment; expected env_id in policy.json")
    env_id, kwargs = facts["env_id"], facts.get("env_kwargs", {})
    if not isinstance(env_id, str) or not isinstance(kwargs, dict):
        raise InputError(
            f"{name}: env_id is {env_id!r:.80} with env_kwargs {kwargs!r:.80}; expected a text and an object"
        )
    return Task(env_id, kwargs)


@contextmanager
def policy_folder(place: str) -> Iterator[Path]:
    """The folder of the policy of a run, of an artifact (its folder, URI or reference), or its own."""
    path = Path(place)
    if path.is_dir():
        yield _inside(path)
    elif path.is_file():
        ref = ArtifactRef.load(path)
        with _artifact(ref.root, ref) as folder:
            yield folder
    elif f"/{ARTIFACTS}/" in place and "://" in place:
        root, _, digest = place.rstrip("/").rpartition(f"/{ARTIFACTS}/")
        with _artifact(root, digest) as folder:
            yield folder
    else:
        raise InputError(
            f"{place}: no such folder; expected a run such as runs/latest, a policy, or an artifact such as "
            f"s3://bucket/prefix/{ARTIFACTS}/<digest>"
        )


def _inside(folder: Path) -> Path:
    """The last policy of a run, the policy of an artifact, or the folder itself."""
    if (folder / MANIFEST_FILE).exists():
        check_folder(folder, read_manifest(folder))
        return folder / POLICY
    return of_run(folder)


@contextmanager
def _artifact(root: str, ref: ArtifactRef | str) -> Iterator[Path]:
    with hold(open_store(root), ref, Cache(default_cache() / ARTIFACTS)) as folder:
        if not (folder / POLICY).is_dir():
            kind = read_manifest(folder).kind
            raise InputError(
                f"{folder}: an artifact of kind {kind} has no policy; expected behavior, offline or online"
            )
        yield folder / POLICY
