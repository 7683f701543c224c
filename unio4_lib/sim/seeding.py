"""One seed for a batch, one generator per environment."""

from typing import Any

import numpy as np


def env_seed(seed: int, index: int) -> int:
    """The seed of environment ``index``: depends on nothing but the two arguments."""
    high, low = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(2)
    # 63 bits, so that it also fits where a signed integer is expected.
    return (int(high) << 32 | int(low)) >> 1


def env_generators(seed: int, num_envs: int) -> list[np.random.Generator]:
    """Generators as Gymnasium makes them from ``env_seed``, so that both draw the same starts."""
    seeds = [env_seed(seed, index) for index in range(num_envs)]
    return [np.random.Generator(np.random.PCG64(np.random.SeedSequence(s))) for s in seeds]


def save_generators(generators: list[np.random.Generator]) -> list[dict[str, Any]]:
    """JSON values."""
    return [dict(generator.bit_generator.state) for generator in generators]


def restore_generators(states: list[dict[str, Any]]) -> list[np.random.Generator]:
    """The inverse of ``save_generators``."""
    generators = []
    for state in states:
        bits: Any = np.random.PCG64()
        bits.state = state
        generators.append(np.random.Generator(bits))
    return generators
