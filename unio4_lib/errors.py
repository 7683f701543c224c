"""The one exception that a user may meet: it becomes one line and exit code 2."""

import errno

# Numbers of an OSError on a full disk or quota, and at the largest file that a shell allows (ulimit -f).
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line that names the place, what was found and what would be right.
    Library code raises it; only the command line prints it and exits.
    """


class DatasetNotSet(InputError):  # noqa: N818 - reads as a statement of what happened
    """Settings are complete but for the dataset."""


class Preempted(RuntimeError):  # noqa: N818 - reads as a statement of what happened
    """The process was asked to end: what it had is saved, and another one can go on from there."""
