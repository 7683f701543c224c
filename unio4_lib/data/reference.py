"""Reference scores of D4RL, for environments whose dataset brings none.

Numbers of ``d4rl/infos.py`` (Fu et al. 2020): the score 0 is a random policy, 100 an expert. They give the
scale only; data recorded elsewhere is not D4RL's data.
"""

import re

D4RL_SCORES: dict[str, tuple[float, float]] = {
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "door": (-56.512833, 2880.5693087298737),
    "halfcheetah": (-280.178953, 12135.0),
    "hammer": (-274.856578, 12794.134825156867),
    "hopper": (-20.272305, 3234.3),
    "kitchen": (0.0, 4.0),
    "pen": (96.262799, 3076.8331017826877),
    "relocate": (-6.425911, 4233.877797728884),
    "walker2d": (1.629008, 4592.3),
}

# Gymnasium's longer names: AdroitHandPen, FrankaKitchen.
PREFIXES = ("adroithand", "franka")


def d4rl_reference(env_id: str) -> tuple[float, float] | tuple[None, None]:
    """(random, expert) return of an environment id such as ``Hopper-v5``, or two None."""
    family = re.split(r"[-_]", env_id.rsplit("/", 1)[-1], maxsplit=1)[0].lower()
    for prefix in PREFIXES:
        family = family.removeprefix(prefix)
    return D4RL_SCORES.get(family, (None, None))
