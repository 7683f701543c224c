"""The Gymnasium MuJoCo tasks as functions of a batch of simulator states.

Each class here restates one Gymnasium environment class: which simulator fields it looks at, and how
observation, reward, termination and the start of an episode follow from them. Parameters are read
from a real instance, so keyword arguments of ``gymnasium.make`` have their usual effect.

All tasks are exact: they read the same fields at the same moment as Gymnasium does. That includes its
known quirk that body positions lag the joint positions by one substep, because ``mj_step`` integrates
last. Pusher-v4 is missing because it refuses to run on MuJoCo 3 and later.
"""

from unio4_lib.sim.tasks import arms, bodies, pendulums, planar
from unio4_lib.sim.tasks.base import Fields, Task

__all__ = ["TASKS", "Fields", "Task"]

TASKS: dict[type, type[Task]] = {**arms.TASKS, **bodies.TASKS, **pendulums.TASKS, **planar.TASKS}
