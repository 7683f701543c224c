"""Batches of simulated environments behind one contract, ``BatchSim``.

MuJoCo and Gymnasium are imported when an environment is made: stages that make none run without them, and
stages that need no PyTorch (which ``terminations`` needs) run without that.
"""

from typing import Any, Literal

from unio4_lib.errors import InputError
from unio4_lib.sim.base import Array, BatchSim, Flags, StepResult

Backend = Literal["auto", "native", "gym"]

__all__ = ["Array", "Backend", "BatchSim", "Flags", "StepResult", "make_sim"]


def make_sim(
    env_id: str,
    num_envs: int,
    *,
    env_kwargs: dict[str, Any] | None = None,
    threads: int | None = None,
    backend: Backend = "auto",
) -> BatchSim:
    """A batch of ``num_envs`` environments: native where the task is known, else Gymnasium's own.

    ``threads`` (all cores by default) matters for the native simulator only. An id that is not
    registered is an ``InputError`` that names the nearest one.
    """
    if num_envs < 1:
        raise InputError(f"num_envs is {num_envs}, expected at least 1")
    if backend not in ("auto", "native", "gym"):
        raise InputError(f"simulator backend {backend!r} is unknown, expected auto, native or gym")
    from unio4_lib.sim.batch import NativeSim, has_native
    from unio4_lib.sim.gym import GymSim

    if backend == "native" or (backend == "auto" and has_native(env_id, env_kwargs)):
        return NativeSim(env_id, num_envs, env_kwargs=env_kwargs, threads=threads)
    return GymSim(env_id, num_envs, env_kwargs=env_kwargs)
