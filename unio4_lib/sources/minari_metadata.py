"""What the metadata of a Minari dataset says, checked key by key: it may come from anywhere."""

import json
import sys
import warnings
from typing import Any, TypeGuard

from gymnasium import spaces

from unio4_lib.data.flatten import flat_dim, sorted_space
from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.reference import reference_scores
from unio4_lib.errors import InputError

METADATA_FILE = "metadata.json"
KNOWN_PACKAGES = ("gymnasium", "gymnasium_robotics")  # whose environments are found by their id alone
DESCRIPTIONS = ("algorithm_name", "description", "minari_version")
MOST = 2**53  # whole numbers above are not exact as floats, and no dataset has as many rows


def count(metadata: dict[str, Any], key: str) -> int:
    """A whole number of at least 1."""
    value = metadata.get(key)
    if not _is_number(value) or not 1 <= value <= MOST or value != int(value):
        raise InputError(f"{METADATA_FILE}: {key} is {_shown(value)}, must be a whole number of at least 1")
    return int(value)


def sizes(metadata: dict[str, Any]) -> tuple[int, int]:
    """Rows and episodes, each with a row at least."""
    steps, episodes = count(metadata, "total_steps"), count(metadata, "total_episodes")
    if episodes > steps:
        raise InputError(
            f"{METADATA_FILE}: total_episodes is {episodes}, must be at most total_steps, which is {steps}"
        )
    return steps, episodes


def dataset_spaces(dataset_id: str, metadata: dict[str, Any]) -> tuple[spaces.Space[Any], spaces.Box]:
    """Spaces of observations and actions, both of vectors."""
    observation_space = _parse_space(dataset_id, metadata, "observation_space")
    action_space = _parse_space(dataset_id, metadata, "action_space")
    if not isinstance(action_space, spaces.Box) or action_space.dtype.kind not in "fiu":
        raise InputError(
            f"action_space of {dataset_id} is {_shown(action_space)}; only continuous (Box) actions are "
            "supported"
        )
    # Names what cannot be flattened before anything is read.
    for key, space in (("observation_space", observation_space), ("action_space", action_space)):
        if (dim := flat_dim(key, space)) < 1:
            raise InputError(f"{key} of {dataset_id}: {dim} dimensions, must be at least one")
    return observation_space, action_space


def _parse_space(dataset_id: str, metadata: dict[str, Any], key: str) -> spaces.Space[Any]:
    text = metadata.get(key)
    if not isinstance(text, str):
        raise InputError(f"{METADATA_FILE} of {dataset_id}: no {key}; create the dataset with its spaces")
    from minari.serialization import deserialize_space

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the line below says what matters
            return sorted_space(deserialize_space(text))
    except Exception as error:  # Minari and Gymnasium check nothing: anything may be raised
        reason = " ".join(repr(error).split())
        raise InputError(f"{METADATA_FILE} of {dataset_id}: {key} cannot be read ({reason:.120})") from error


def dataset_info(
    dataset_id: str, metadata: dict[str, Any], action_space: spaces.Box, env_id: str | None
) -> DatasetInfo:
    """The environment, the bounds and the scores of a dataset; ``env_id`` where the user gives one."""
    spec = _spec(dataset_id, metadata)
    name = env_id or _environment(spec)
    if not name:
        raise InputError(
            f"{METADATA_FILE} of {dataset_id}: no env_spec; add ?env=<environment id> to the source"
        )
    extra: dict[str, Any] = {
        key: value for key in DESCRIPTIONS if isinstance(value := metadata.get(key), str) and value
    }
    if spec.get("max_episode_steps") not in (None, -1):
        extra["max_episode_steps"] = count(spec, "max_episode_steps")
    low_score, high_score = _scores(metadata)
    if low_score is None or high_score is None:
        low_score, high_score = reference_scores(name) or (None, None)
        if low_score is not None:
            extra["score_reference"] = "D4RL"  # the scale of D4RL's scores, not its data
    return DatasetInfo(
        env_id=name,
        env_kwargs=dict(spec.get("kwargs") or {}) if name.rpartition(":")[2] == spec.get("id") else {},
        action_low=tuple(float(value) for value in action_space.low.reshape(-1)),
        action_high=tuple(float(value) for value in action_space.high.reshape(-1)),
        source=f"minari:{dataset_id}",
        ref_min_score=low_score,
        ref_max_score=high_score,
        extra=extra,
    )


def _spec(dataset_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """The recorded environment, as far as it is used; empty where none was recorded."""
    text = metadata.get("env_spec")
    where = f"{METADATA_FILE} of {dataset_id}: env_spec"
    if text is None or text == "":
        return {}
    try:
        spec = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error!s:.120})") from error
    if spec is None:
        return {}
    if not isinstance(spec, dict):
        raise InputError(f"{where} is {_shown(spec)}, must be a JSON object")
    for key, kind, wanted in (("id", str, "text"), ("kwargs", dict, "an object")):
        if not isinstance(spec.get(key), kind | None):
            raise InputError(f"{where}: {key} is {_shown(spec[key])}, must be {wanted}")
    return spec


def _environment(spec: dict[str, Any]) -> str | None:
    """The recorded id; where it is not Gymnasium's, after the module whose import registers it."""
    name, entry_point = spec.get("id"), spec.get("entry_point")
    if not name or not isinstance(entry_point, str):
        return name
    module = entry_point.partition(":")[0]
    return name if module.partition(".")[0] in KNOWN_PACKAGES else f"{module}:{name}"


def _scores(metadata: dict[str, Any]) -> tuple[float | None, float | None]:
    """The returns that count as 0 and as 100; None where the dataset does not say."""
    found = [metadata.get(key) for key in ("ref_min_score", "ref_max_score")]
    for key, value in zip(("ref_min_score", "ref_max_score"), found, strict=True):
        if value is not None and not _is_number(value):
            raise InputError(f"{METADATA_FILE}: {key} is {_shown(value)}, must be a finite number")
    low, high = (None if value is None else float(value) for value in found)
    if low is not None and high is not None and low >= high:
        raise InputError(
            f"{METADATA_FILE}: ref_min_score {low:g} must be smaller than ref_max_score {high:g}"
        )
    return low, high


def megabytes(metadata: dict[str, Any]) -> float | None:
    """The size that the dataset says it has."""
    value = metadata.get("dataset_size")
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shown(value: Any) -> str:
    return " ".join(str(value).split())[:60]
