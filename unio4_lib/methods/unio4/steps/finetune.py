"""The improved policy, trained on in its environment."""

from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.unio4 import trainings
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.methods.unio4.stored import read_critics
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import CURVE_FILE
from unio4_lib.stages.stored import data_of, read_policy, transitions_of, write_policy
from unio4_lib.stages.task import Task


def compute(work: StageWork[UniO4Config]) -> None:
    """Online PPO from the offline policy."""
    task = Task.of(transitions_of(work))
    with torch_threads(1):
        value = None
        if work.config.finetune.critic == "offline":
            value = trainings.offline_value(data_of(work), read_critics(work))
        policy, curve = trainings.finetune_online(
            read_policy(work, "offline"),
            task,
            work.config,
            work.context.reporter,
            initial_value=value,
            journal=work.journal,
        )
    write_policy(work, policy, task)
    work.write(CURVE_FILE, curve.points)
    env_steps, mean, _ = curve.points[-1]
    work.metrics.update({"env_steps": float(env_steps), "last_return": mean})
    work.metrics["falls"] = float(len(curve.falls))
    worst = {"worst_look": curve.worst_look, "worst_running_return": curve.worst_running_return}
    work.metrics.update({name: share for name, share in worst.items() if share is not None})
    work.finish(
        [(entry.step, entry.values) for entry in curve.log],
        {"env_steps": env_steps, "delivered_at": curve.delivered_at, "falls": curve.falls, **worst},
    )
