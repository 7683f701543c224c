"""The command line: the only room that prints and exits."""


def main() -> None:
    """The ``unio4`` command."""
    from unio4_lib.cli import commands

    commands.main()
