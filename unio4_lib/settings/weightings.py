"""Names of the ways in which rows of a dataset count when a policy is cloned from it.

uniform: plain cloning. return:T: whole episodes count by exp((R - R_max) / (T sd(R))). advantage:B: rows
count by exp(B A / sd(A)), which is how advantage-weighted regression and IQL extract a policy from critics.
Factors are joined by ``*``.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

UNIFORM, BY_RETURN, BY_ADVANTAGE = "uniform", "return", "advantage"

_FACTOR = re.compile(rf"({BY_RETURN}|{BY_ADVANTAGE}):(\d+(?:\.\d+)?)")


def factors(weighting: str) -> list[tuple[str, float]]:
    """Pairs of a kind and its number; none for uniform."""
    found = []
    for factor in () if weighting == UNIFORM else weighting.split("*"):
        match = _FACTOR.fullmatch(factor)
        if match is None or float(match[2]) <= 0.0:
            raise ValueError(
                f"{weighting!r} names no weighting; expected uniform, return:T or advantage:B with a number "
                "above zero, or several of these joined by *"
            )
        found.append((match[1], float(match[2])))
    return found


def needs_critics(weighting: str) -> bool:
    """Whether a weighting asks for advantages."""
    return any(kind == BY_ADVANTAGE for kind, _ in factors(weighting))


def _known(weighting: str) -> str:
    factors(weighting)
    return weighting


Weighting = Annotated[str, AfterValidator(_known)]
