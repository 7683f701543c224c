"""Timing that a busy machine disturbs least: all parts in turn, processor time, medians over the rounds."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

Work = Callable[[], float]
"""Does something and says how many units of it there were."""

PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Sample:
    """One round of one part."""

    units: float
    processor: float  # seconds, of child processes too
    wall: float  # seconds


@dataclass(frozen=True)
class Timing:
    """What the rounds of one part came to, for one unit of its work."""

    processor: float  # seconds, the median
    spread: float  # half the distance of the quartiles, as a share of the median
    wall: float  # seconds, the median

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Timing":
        each = [sample.processor / sample.units for sample in samples]
        middle = median(each)
        low, _, high = quantiles(each, n=4, method="inclusive") if len(each) > 1 else (middle,) * 3
        wall = median(sample.wall / sample.units for sample in samples)
        return cls(middle, (high - low) / 2 / middle if middle else 0.0, wall)


@dataclass
class Meter:
    """Keeps what each part did in each round."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def round(self, parts: Mapping[str, Work], seconds: float) -> None:
        """Let every part work for about so long, one after the other."""
        for name, work in parts.items():
            self.samples.setdefault(name, []).append(timed(work, seconds))

    def timings(self) -> dict[str, Timing]:
        return {name: Timing.of(samples) for name, samples in self.samples.items()}


def timed(work: Work, seconds: float) -> Sample:
    """Repeat ``work`` until ``seconds`` of wall time are over, at least once."""
    processor, began, units = processor_seconds(), time.perf_counter(), 0.0
    while units == 0.0 or time.perf_counter() - began < seconds:
        units += work()
    return Sample(units, processor_seconds() - processor, time.perf_counter() - began)


def processor_seconds() -> float:
    """Of this process with all its threads, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0
