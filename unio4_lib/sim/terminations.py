"""When known tasks end, as a function of the next observation: for rollouts of a learned model.

The rules are those of the environments with their default arguments. Where Gymnasium's rule looks at
something that the observation does not hold exactly (Hopper's velocities are clipped to 10, so its
limit of 100 on them cannot be seen), the rule is applied to what is there.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

Termination = Callable[[Tensor], Tensor]

HOPPER_STATE_LIMIT = 100.0
PEN_DROPPED_HEIGHT = 0.075
PEN_HEIGHT_INDEX = 26  # height of the pen in the Adroit observation


def _never(observations: Tensor) -> Tensor:
    return torch.zeros(observations.shape[:-1], dtype=torch.bool, device=observations.device)


def _hopper(observations: Tensor) -> Tensor:
    """[..., 11] -> [...]: height, angle, three joints, six velocities."""
    in_range = (observations[..., 1:].abs() < HOPPER_STATE_LIMIT).all(dim=-1)
    upright = (observations[..., 0] > 0.7) & (observations[..., 1].abs() < 0.2)
    return ~(in_range & upright & observations.isfinite().all(dim=-1))


def _walker2d(observations: Tensor) -> Tensor:
    """[..., 17] -> [...]: height, angle, six joints, nine velocities."""
    height, angle = observations[..., 0], observations[..., 1]
    healthy = (height > 0.8) & (height < 2.0) & (angle.abs() < 1.0)
    return ~(healthy & observations.isfinite().all(dim=-1))


def _inverted_pendulum(observations: Tensor) -> Tensor:
    """[..., 4] -> [...]: cart, angle, two velocities."""
    return ~(observations.isfinite().all(dim=-1) & (observations[..., 1].abs() <= 0.2))


def _ant(observations: Tensor) -> Tensor:
    """[..., D] -> [...]: height first."""
    height = observations[..., 0]
    return ~(observations.isfinite().all(dim=-1) & (height >= 0.2) & (height <= 1.0))


def _humanoid(observations: Tensor) -> Tensor:
    """[..., D] -> [...]: height first."""
    height = observations[..., 0]
    return ~(observations.isfinite().all(dim=-1) & (height > 1.0) & (height < 2.0))


def _pen(observations: Tensor) -> Tensor:
    """[..., 45] -> [...]."""
    return observations[..., PEN_HEIGHT_INDEX] < PEN_DROPPED_HEIGHT


def _inverted_double_pendulum(observations: Tensor) -> Tensor:
    """[..., 9 or 11] -> [...]: cart, two sines, two cosines, velocities, constraint forces.

    Both poles are 0.6 long; the angle of the second is relative to the first. The tip's height that
    Gymnasium looks at is one substep older than the observation.
    """
    sine_1, sine_2 = observations[..., 1], observations[..., 2]
    cosine_1, cosine_2 = observations[..., 3], observations[..., 4]
    height = 0.6 * cosine_1 + 0.6 * (cosine_1 * cosine_2 - sine_1 * sine_2)
    return ~(observations.isfinite().all(dim=-1) & (height > 1.0))


_RULES: dict[str, Termination] = {
    "adroithanddoor": _never,
    "adroithandhammer": _never,
    "adroithandpen": _pen,
    "adroithandrelocate": _never,
    "ant": _ant,
    "frankakitchen": _never,
    "halfcheetah": _never,
    "hopper": _hopper,
    "humanoid": _humanoid,
    "humanoidstandup": _never,
    "inverteddoublependulum": _inverted_double_pendulum,
    "invertedpendulum": _inverted_pendulum,
    "pusher": _never,
    "reacher": _never,
    "swimmer": _never,
    "walker2d": _walker2d,
}


def _family(env_id: str) -> str:
    """``"Hopper-v5"`` -> ``"hopper"``."""
    return re.sub(r"-v\d+$", "", env_id.rsplit("/", 1)[-1]).lower()


def known_termination(env_id: str) -> Termination | None:
    """Next observations [..., D] -> terminals [...] of a known task, None for any other."""
    return _RULES.get(_family(env_id))
