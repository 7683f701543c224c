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

# Longer names that Gymnasium and D4RL use for the same family.
PREFIXES = ("adroithand", "franka")


def reference_scores(env_id: str) -> tuple[float, float] | None:
    """(random, expert) return by D4RL for an environment or dataset id, None where D4RL has none.

    The references were measured on other physics than today's MuJoCo, and Minari's ``mujoco`` sets are
    not D4RL's: a score by them is comparable within a project, not digit for digit with papers.
    """
    for part in reversed(env_id.lower().split("/")):
        family = re.split(r"[-_]", part)[0]
        for prefix in PREFIXES:
            family = family.removeprefix(prefix)
        if family in D4RL_SCORES:
            return D4RL_SCORES[family]
    return None
