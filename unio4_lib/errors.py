"""The one exception that a user may meet: it becomes one line and exit code 2."""

import errno
import re
from urllib.parse import urlsplit

# Of an address inside a text. A password that nobody encoded may hold any of @ / ? #, which a port cannot.
USER_INFO = re.compile(r"(\w://)(?:[^/\s:@]*:(?!\d+(?:[/?#\s]|$))\S*@|[^/\s]+@)")

# Numbers of an OSError on a full disk or quota, and at the largest file that a shell allows (ulimit -f).
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


BELONG_ELSEWHERE = "credentials in a place, which is written down; they belong in AWS's own variables"
ENCODED = "expected scheme://host:port; in a password %40 %2F %3F %23 %5B stand for @ / ? # ["


def without_user_info(text: str) -> str:
    """A text as it may be shown and written down: names and passwords of its addresses are left out."""
    return USER_INFO.sub(r"\1", text)


def is_address(text: str) -> bool:
    """Whether host and port can be told apart; a password that nobody encoded may keep one from it."""
    try:
        return urlsplit(text).port != 0
    except ValueError:
        return False


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line that names the place, what was found and what would be right.
    Library code raises it; only the command line prints it and exits.
    """


class DatasetNotSet(InputError):  # noqa: N818 - reads as a statement of what happened
    """Settings are complete but for the dataset."""


class Preempted(RuntimeError):  # noqa: N818 - reads as a statement of what happened
    """The process was asked to end: what it had is saved, and another one can go on from there."""
