"""What a method adds to the report of its runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unio4_lib.report.markup import Markup
from unio4_lib.report.record import RunRecord
from unio4_lib.report.verdicts import CheckOf

Panel = tuple[str, str, Callable[[RunRecord], Markup]]  # key, title and content of a section


@dataclass(frozen=True)
class View:
    """What only the method knows how to show."""

    panels: tuple[Panel, ...]  # sections between the data and the times
    checks: tuple[CheckOf, ...]  # reasons to trust the run, or not to
    phases: Mapping[str, str]  # of each stage, the phase of the journey
    amounts: Mapping[str, tuple[str, str]]  # of each stage, the setting with its amount and the word for one
