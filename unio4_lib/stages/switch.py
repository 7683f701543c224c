"""Whether the improved policy goes online: what the user asked, and what the gate found."""

from unio4_lib.errors import InputError

CHOICES = ("always", "improved", "never")


def checked_choice(choice: str) -> str:
    """The choice, if it is one."""
    if choice not in CHOICES:
        raise InputError(f"finetune is {choice!r}; expected one of {', '.join(CHOICES)}")
    return choice


def goes_online(choice: str, accepted: float | None) -> bool:
    """``accepted`` is how many policies passed the gate; None where the method has none."""
    if checked_choice(choice) == "improved" and accepted is None:
        raise InputError("finetune is improved, but this method has no gate; expected always or never")
    return choice == "always" or (choice == "improved" and accepted is not None and accepted > 0)


def verdict(choice: str, accepted: float | None) -> str:
    """The decision in a line."""
    where = "goes online" if goes_online(choice, accepted) else "stays offline"
    found = "no gate" if accepted is None else f"{accepted:.0f} policies accepted"
    return f"gate: {found}, finetune={choice}: {where}"
