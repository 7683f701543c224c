"""Environment ids: looking one up, and making an environment with errors that a user can act on."""

import contextlib
import difflib
import importlib
import importlib.metadata
import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
from gymnasium.envs.registration import EnvSpec

from unio4_lib.errors import InputError

logger = logging.getLogger(__name__)

LONGEST = 10**12  # steps of an episode: more than anyone waits for, and their sums fit 64 bits
_reported_kinds: set[str] = set()

# Ids that the optional package gymnasium-robotics registers.
ROBOTICS_PREFIXES = (
    "AdroitHand",
    "AntMaze",
    "Fetch",
    "FrankaKitchen",
    "HandManipulate",
    "HandReach",
    "PointMaze",
)
MUJOCO_FOR_ROBOTICS = "3.5.0"  # all of them work with it


def find_spec(env_id: str) -> EnvSpec:
    """The registered specification of ``env_id``, else an ``InputError`` with the nearest id.

    ``module:id`` imports the module first, which registers environments that are not Gymnasium's.
    """
    if env_id.startswith(ROBOTICS_PREFIXES):
        _register_robotics(env_id)
    module, colon, name = env_id.rpartition(":")
    if colon:
        _import_environments(module, env_id)
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        near = difflib.get_close_matches(name, list(gymnasium.registry), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "see gymnasium.pprint_registry()"
        own = "" if module else "; an environment of your own is <module>:<id>"
        raise InputError(f"environment {env_id!r} is not registered, {hint}{own}") from error


def _import_environments(module: str, env_id: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever the user's module does
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"environment {env_id!r}: module {module!r} cannot be imported ({reason}); install it where "
            "unio4 is installed, or name its folder in PYTHONPATH"
        ) from error


def _register_robotics(env_id: str) -> None:
    notes = io.StringIO()
    try:
        with contextlib.redirect_stderr(notes):  # it prints its release notes
            robotics = importlib.import_module("gymnasium_robotics")
    except ImportError as error:
        raise InputError(
            f'environment {env_id!r} needs gymnasium-robotics: pip install "unio4[robotics]"'
        ) from error
    gymnasium.register_envs(robotics)
    if notes.getvalue():
        logger.debug("gymnasium-robotics: %s", notes.getvalue().strip())


def _log_warning(message: str) -> None:
    """What MuJoCo warns of, such as a simulation that diverges: once for each kind, then for the curious."""
    kind = message.split(".", 1)[0]  # what follows is the simulated time
    level = logging.DEBUG if kind in _reported_kinds else logging.WARNING
    _reported_kinds.add(kind)
    logger.log(level, "MuJoCo: %s", message)


@contextlib.contextmanager
def _warnings_logged() -> Iterator[None]:
    """Send MuJoCo's warnings to the log, from now on; it would write MUJOCO_LOG.TXT where the user works.

    What it says while a model is loaded concerns Gymnasium's authors only. A handler that someone else has
    set stays.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: logger.debug("MuJoCo: %s", message))
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous or _log_warning)


def checked_limit(env_id: str, limit: Any) -> int | None:
    """Most steps of an episode, or None for no limit; anything else does not fit."""
    if limit is None or (type(limit) is int and 1 <= limit <= LONGEST):
        return limit
    raise InputError(
        f"env_kwargs do not fit {env_id!r}: max_episode_steps is {limit!r:.40}, must be a whole number "
        f"from 1 to {LONGEST:.0e}, or null"
    )


def make_env(env_id: str, env_kwargs: dict[str, Any] | None, **options: Any) -> gymnasium.Env:
    """``gymnasium.make`` without its checker; what the user got wrong becomes an ``InputError``."""
    find_spec(env_id)
    checked_limit(env_id, (env_kwargs or {}).get("max_episode_steps"))
    try:
        with _warnings_logged():
            return gymnasium.make(env_id, disable_env_checker=True, **{**(env_kwargs or {}), **options})
    except TypeError as error:
        raise InputError(f"env_kwargs do not fit {env_id!r}: {error}") from error
    except (ImportError, gymnasium.error.Error) as error:
        raise InputError(f"environment {env_id!r} cannot be made: {' '.join(str(error).split())}") from error
    except AssertionError as error:
        if Path(traceback.extract_tb(error.__traceback__)[-1].filename).name != "mujoco_utils.py":
            raise
        # Kitchen, Fetch and the Shadow hand compare joint types in a way that fails with new bindings.
        robotics = importlib.metadata.version("gymnasium-robotics")
        raise InputError(
            f"environment {env_id!r} cannot be made: gymnasium-robotics {robotics} does not fit MuJoCo "
            f'{mujoco.__version__} there; pip install "mujoco=={MUJOCO_FOR_ROBOTICS}"'
        ) from error
    except Exception as error:
        if not env_kwargs:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"env_kwargs do not fit {env_id!r}: {reason}") from error
