"""What a person wants to know about a dataset before training on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.checks import ROW_FIELDS, action_bounds, blocks
from unio4_lib.data.numbers import histogram
from unio4_lib.data.oddities import AT_BOUND, oddities
from unio4_lib.data.transitions import Transitions

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
HISTOGRAM_BINS = 12


def describe(transitions: Transitions) -> dict[str, Any]:
    """Plain JSON values: sizes, returns, lengths, ends and actions."""
    returns, info = transitions.episode_returns(), transitions.info
    mean = float(returns.mean())
    counts, edges = histogram(returns, HISTOGRAM_BINS)
    rows = transitions.num_transitions
    return {
        "source": info.source,
        "env_id": info.env_id,
        "env_kwargs": info.env_kwargs,
        "digest": transitions.digest(),
        "transitions": rows,
        "episodes": transitions.num_episodes,
        "bytes": sum(getattr(transitions, name).nbytes for name in ROW_FIELDS),
        "fields": {name: _field(getattr(transitions, name)) for name in ROW_FIELDS},
        "returns": {
            "mean": mean,
            "std": float(returns.std()),
            "quantiles": _quantiles(returns),
            "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        },
        "normalized_mean": info.normalized(mean),
        "ref_min_score": info.ref_min_score,
        "ref_max_score": info.ref_max_score,
        "lengths": {
            "mean": float(transitions.episode_lengths().mean()),
            "quantiles": _quantiles(transitions.episode_lengths()),
        },
        "ends": {
            "terminals": int(transitions.terminals.sum()),
            "timeouts": int(transitions.timeouts.sum()),
            "terminal_share_of_episodes": float(transitions.terminals.sum() / transitions.num_episodes),
            "terminal_share_of_rows": float(transitions.terminals.sum() / rows),
        },
        "actions": _actions(transitions),
        "extra": info.extra,
        "notes": oddities(transitions),
    }


def _field(array: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{quantile:g}": float(value) for quantile, value in zip(QUANTILES, found, strict=True)}


def _actions(transitions: Transitions) -> list[dict[str, float]]:
    """Per dimension: bounds, range, mean, std and the share of rows at a bound."""
    actions = transitions.actions
    low, high = action_bounds(transitions.info)
    margin = AT_BOUND * (high - low)
    at_low, at_high, total, squares = (np.zeros(len(low)) for _ in range(4))
    for block in blocks(len(actions)):
        part = actions[block]
        at_low += (part <= low + margin).sum(axis=0)
        at_high += (part >= high - margin).sum(axis=0)
        total += part.sum(axis=0, dtype=np.float64)
        squares += np.square(part, dtype=np.float64).sum(axis=0)
    rows = len(actions)
    columns = {
        "low": low,
        "high": high,
        "min": actions.min(axis=0),
        "max": actions.max(axis=0),
        "mean": total / rows,
        "std": np.sqrt(np.maximum(squares / rows - (total / rows) ** 2, 0)),
        "share_at_low": at_low / rows,
        "share_at_high": at_high / rows,
    }
    return [{name: float(values[index]) for name, values in columns.items()} for index in range(len(low))]
