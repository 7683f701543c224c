"""Volume claims for the stage that reads data, written into a compiled pipeline as it is submitted.

They are no parameter of the pipeline: KFP 2.17 takes no value of one for "none", and ends the task.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import yaml

from unio4_lib.errors import InputError

READER = "exec-prepare-dataset"
CLAIM = re.compile(r"([a-z0-9][a-z0-9.-]*):(/[^:]+)")

Registered = TypeVar("Registered")


@contextmanager
def mounted(what: Path | Registered, claims: Sequence[str]) -> Iterator[Path | Registered]:
    """The pipeline with these claims, each as NAME:/PATH; what is registered has its own."""
    if not claims:
        yield what
        return
    if not isinstance(what, Path):
        raise InputError(
            "--claim: a registered pipeline has claims of its own; expected --pipeline or neither"
        )
    spec, platform = yaml.load_all(what.read_text(), Loader=yaml.CSafeLoader)
    task = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][READER]
    for claim in claims:
        found = CLAIM.fullmatch(claim)
        if found is None:
            raise InputError(f"--claim {claim}: expected NAME:/PATH")
        name = {"runtimeValue": {"constant": found[1]}}
        mount = {"constant": found[1], "pvcNameParameter": name, "mountPath": found[2]}
        task.setdefault("pvcMount", []).append(mount)
    with TemporaryDirectory() as folder:
        package = Path(folder) / what.name
        package.write_text(yaml.safe_dump_all([spec, platform], sort_keys=False))
        yield package
