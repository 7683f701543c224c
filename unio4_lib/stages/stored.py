"""What stages read and write alike: the rows, the training data, policies."""

from typing import Any, overload

from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.nets.files import P, load_policy, save_policy
from unio4_lib.nets.policy import Policy
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.fingerprint import digest_of
from unio4_lib.stages.prepare import TRANSITIONS
from unio4_lib.stages.runner import StageWork
from unio4_lib.stages.step import DATA_KEYS, POLICY
from unio4_lib.stages.task import Task


def transitions_of(work: StageWork[Any]) -> Transitions:
    """The prepared rows, mapped from the disk."""
    folder = work.input("dataset") / TRANSITIONS
    return work.context.once(f"rows {folder}", lambda: Transitions.load(folder))


def data_of(work: StageWork[Any]) -> OfflineData:
    """The training data on the device; built once for all stages of a process that want the same."""
    settings, discount = work.config.prepare, work.config.discount
    device = choose_device(work.config)
    values = [getattr(settings, name.removeprefix("prepare.")) for name in DATA_KEYS]
    key = digest_of([work.refs["dataset"].digest, values, discount, str(device)])
    rows = transitions_of(work)

    def build() -> OfflineData:
        try:
            return OfflineData.build(rows, settings, discount=discount, device=device)
        except InputError as error:
            raise InputError(f"dataset {work.config.dataset}: {error}") from error

    return work.context.once(key, build)


def write_policy(work: StageWork[Any], policy: Policy, task: Task, name: str = POLICY, **facts: Any) -> None:
    """A policy as ``unio4 evaluate`` reads it."""
    save_policy(policy, work.folder / name, env_id=task.env_id, env_kwargs=task.env_kwargs, **facts)


@overload
def read_policy(work: StageWork[Any], kind: str) -> Policy: ...


@overload
def read_policy(work: StageWork[Any], kind: str, wanted: type[P]) -> P: ...


def read_policy(work: StageWork[Any], kind: str, wanted: type[Policy] = Policy) -> Policy:
    """The policy of an input, on the device."""
    return load_policy(work.input(kind) / POLICY, wanted)[0].to(choose_device(work.config))
