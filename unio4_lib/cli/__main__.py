"""``python -m unio4_lib.cli``."""

from unio4_lib.cli.commands import main

if __name__ == "__main__":
    main()
