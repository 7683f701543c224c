"""What the rest of the house knows of a method."""

from dataclasses import dataclass
from pathlib import Path

from unio4_lib.errors import InputError
from unio4_lib.report.verdicts import CheckOf
from unio4_lib.report.view import Panel, View
from unio4_lib.settings.layers import Presets
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.step import Step
from unio4_lib.stages.switch import goes_online


@dataclass(frozen=True)
class Method:
    """One way from a dataset to a policy."""

    name: str
    about: str  # one line
    settings: type[RunConfig]
    presets: tuple[Path, ...]  # folders of YAML files, of which later ones add to what earlier ones say
    pipeline: str  # the compiled pipeline that runs it
    steps: tuple[Step, ...]  # from prepare to report, in an order in which they can run
    panels: tuple[Panel, ...] = ()  # of its report, between the data and the times
    checks: tuple[CheckOf, ...] = ()  # reasons to trust its runs, or not to
    composite: bool = False  # whether its policy acts by more than one network
    gated: bool = False  # whether its offline stage can say that the policy improved

    def step(self, name: str) -> Step:
        """The step of a name."""
        for step in self.steps:
            if step.name == name:
                return step
        expected = ", ".join(step.name for step in self.steps)
        raise InputError(f"stage {name}: method {self.name} has no such stage; expected one of {expected}")

    def check_choice(self, choice: str) -> None:
        """Whether the user may ask for this way of going online, before anything runs."""
        goes_online(choice, 0.0 if self.gated else None)

    def stage_names(self) -> dict[str, str]:
        """The steps by the kinds that they make, in their order."""
        return {step.kind: step.name for step in self.steps}

    def view(self) -> View:
        """What it adds to the report."""
        return View(
            self.panels,
            self.checks,
            phases={step.name: step.phase for step in self.steps},
            amounts={step.name: step.amount for step in self.steps},
        )

    def presets_of(self) -> Presets:
        """Its presets."""
        return Presets(self.presets)
