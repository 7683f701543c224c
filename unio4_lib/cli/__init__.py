"""The command line: the only room that prints and exits."""

import atexit
import gc

# At its end Python looks through all that there is for what nobody needs: with PyTorch, most of a second.
atexit.register(gc.freeze)


def main() -> None:
    """The ``unio4`` command."""
    from unio4_lib.cli import commands

    commands.main()
