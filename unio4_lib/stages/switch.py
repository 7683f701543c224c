"""Whether the improved policy goes online: what the user asked, and what the gate found."""

from unio4_lib.errors import InputError

CHOICES = ("always", "improved", "never")


def checked_choice(choice: str) -> str:
    """The choice, if it is one."""
    if choice not in CHOICES:
        raise InputError(f"finetune is {choice!r}; expected one of {', '.join(CHOICES)}")
    return choice


def goes_online(choice: str, accepted: float) -> bool:
    """``accepted`` is how many policies passed the gate."""
    return checked_choice(choice) == "always" or (choice == "improved" and accepted > 0)


def verdict(choice: str, accepted: float) -> str:
    """The decision in a line."""
    where = "goes online" if goes_online(choice, accepted) else "stays offline"
    return f"gate: {accepted:.0f} policies accepted, finetune={choice}: {where}"
