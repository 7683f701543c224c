"""A slice of the fuzzing: `make fuzz` takes many more cases of each target."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import campaign
import numpy as np
import pytest
from campaign import Finding, fuzz
from target import Target
from targets import TARGETS

CASES = 20


@pytest.mark.parametrize("name", TARGETS)
def test_damage_ends_well_or_with_one_line(name: str) -> None:
    assert list(fuzz(name, seed=0, cases=range(CASES))) == []


def crash(random: Random, work: Path) -> None:
    raise KeyError("a")


def hang(random: Random, work: Path) -> None:
    time.sleep(60)


def waste(random: Random, work: Path) -> None:
    np.ones(1 << 28)


def wander(random: Random, work: Path) -> None:
    (work.parents[1] / f"{work.parent.name}.txt").write_text("x")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (crash, "KeyError: \"'a'\" at no line of ours"),
        (hang, "takes more than 0 s"),
        (waste, "more than 1024 MiB"),
        (wander, "written outside: open "),
    ],
)
def test_what_the_fuzzer_finds(
    attempt: Callable[[Random, Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "LONGEST_SECONDS", 0.3)
    first = []

    def after_the_first(random: Random, work: Path) -> None:
        if first:
            attempt(random, work)
        first.append(work)

    monkeypatch.setitem(campaign.TARGETS, "broken", lambda _: Target("broken", after_the_first))
    (found,) = fuzz("broken", seed=0, cases=range(1))
    assert isinstance(found, Finding) and found.what.startswith(words)
    for left in (Path(found.what.split()[-1]),) if attempt is wander else ():
        left.unlink()
