"""Whether an environment can be recorded: found out by one step before the training, and at every step."""

import numpy as np

from unio4_lib.data.memory import check_memory
from unio4_lib.errors import InputError
from unio4_lib.sim.base import StepResult
from unio4_lib.sim.gym import GymSim
from unio4_lib.sim.registry import make_env
from unio4_lib.sources.collect_spec import CollectSpec

FLOAT_BYTES = 8


def check_recordable(spec: CollectSpec) -> None:
    """The environment can be made, described, reset and stepped, and the recording fits into memory."""
    env = make_env(spec.env_id, spec.env_kwargs)
    try:
        assert env.spec is not None  # whatever Gymnasium makes has one
        env.spec.to_json()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"environment {spec.env_id!r} cannot be written down ({' '.join(str(error).split()):.160}); "
            'register it as text, "<module>:<class>", with plain values'
        ) from error
    finally:
        env.close()
    sim = GymSim(spec.env_id, 1, env_kwargs=spec.env_kwargs)
    try:
        sim.reset(spec.seed % 2**31)
        result = sim.step(0.5 * (sim.action_low + sim.action_high)[None])
    except InputError:
        raise
    except Exception as error:  # of whoever wrote the environment, or by what it was given
        raise InputError(
            f"environment {spec.env_id!r} with env_kwargs {spec.env_kwargs} fails at its first step: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    finally:
        sim.close()
    check_step(spec.env_id, result)
    check_memory("collect: steps", spec.steps, FLOAT_BYTES * (2 * sim.observation_dim + sim.action_dim + 2))


def check_step(env_id: str, result: StepResult) -> None:
    """Rewards and observations are finite."""
    for name, values in (("reward", result.rewards), ("observation", result.next_observations)):
        if not np.isfinite(values).all():
            value = values[~np.isfinite(values)][0]
            raise InputError(f"environment {env_id!r} gave {value} as {name}, must be a finite number")
