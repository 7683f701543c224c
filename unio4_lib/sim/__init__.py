"""Batches of simulated environments behind one contract, ``BatchSim``."""

from unio4_lib.sim.base import Array, BatchSim, Flags, StepResult
from unio4_lib.sim.batch import NativeSim

__all__ = ["Array", "BatchSim", "Flags", "NativeSim", "StepResult"]
