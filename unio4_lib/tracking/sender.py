"""The process beside the training: reads the spool, talks to MLflow, and tells in a file how it goes.

A process and not a thread, because importing MLflow and opening its database take seconds of Python that
would hold up every thread of the training; because MLflow's time limits are environment variables; and
because a process can still deliver how the training ended when the training was killed.
"""

import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from unio4_lib.errors import InputError
from unio4_lib.files import write_atomically
from unio4_lib.tracking import spool
from unio4_lib.tracking.address import hidden, signed_in
from unio4_lib.tracking.spool import Target

PAUSE_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 30.0


def deliver_spool(folder: Path, uri: str | None = None) -> dict[str, Any]:
    """Deliver what waits in a spool whose run has ended; returns the state that ``Sending`` writes."""
    with spool.locked(folder, spool.SENDER_LOCK) as mine:
        if not mine:
            return {"trouble": "its own run is still sending it", "refused": 0}
        sending = Sending(folder, uri)
        sending.close_if_abandoned()
        sending.attempt()
        shutil.rmtree(folder / spool.SCRATCH, ignore_errors=True)  # of a sender that was killed
        return sending.state


class Sending:
    """Attempts to deliver one spool; whatever goes wrong is written down and tried again."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.folder, self.given = folder, uri
        self.uri = None if uri is None else signed_in(uri)
        self.state: dict[str, Any] = {"trouble": None, "refused": 0}
        self._delivery: Any = None

    def attempt(self) -> bool:
        """Whether everything was delivered."""
        try:
            if self._delivery is None:
                from unio4_lib.tracking.delivery import Delivery

                target = Target.load(self.folder)
                self._delivery = Delivery(self.uri or target.uri, target, self.folder)
            self._delivery.deliver()
            trouble = None
        except Exception as error:  # MLflow, SQLAlchemy, requests and boto3 each have classes of their own
            trouble = hidden(explain(error), self.given)
        refused = 0 if self._delivery is None else self._delivery.refused
        self._tell({"trouble": trouble, "refused": refused})
        return trouble is None

    def close_if_abandoned(self) -> None:
        """If the one who wrote is gone, its open runs were killed."""
        with spool.locked(self.folder, spool.WRITER_LOCK) as abandoned:
            if abandoned:
                spool.end_open_outboxes(self.folder)

    def _tell(self, state: dict[str, Any]) -> None:
        if state != self.state:
            self.state = state
            write_atomically(self.folder / spool.STATE, json.dumps(state).encode())


def explain(error: Exception) -> str:
    """One line about why MLflow did not take something."""
    text = " ".join(str(error).split())
    if "Connection refused" in text or "ConnectTimeout" in text or "Max retries exceeded" in text:
        return "the MLflow server does not answer"
    if "403" in text and "host" in text.lower():
        return "the MLflow server refuses its own host name (start it with --allowed-hosts)"
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"{kind}{text[:300]}"


def accompany(folder: Path, uri: str, leftovers: Path | None, ended: threading.Event) -> None:
    """Deliver until the training has ended and all is sent, or until it has ended and nobody answers."""
    with spool.locked(folder, spool.SENDER_LOCK) as mine:
        if not mine:
            raise InputError(f"{folder}: another process sends it")
        sending, pause = Sending(folder, uri), PAUSE_SECONDS
        if leftovers is not None and sending.attempt():
            deliver_leftovers(leftovers, folder, uri)
        while not ended.wait(pause):
            pause = PAUSE_SECONDS if sending.attempt() else min(2 * pause, LONGEST_PAUSE_SECONDS)
        sending.close_if_abandoned()
        sending.attempt()


def deliver_leftovers(below: Path, own: Path, uri: str) -> None:
    """Spools of earlier runs whose server did not answer; those for other servers wait for theirs."""
    from unio4_lib.tracking.address import without_password

    for folder in spool.spools_below(below):
        if folder == own.resolve() or spool.count_waiting(folder) == 0:
            continue
        if Target.load(folder).uri == without_password(uri):
            deliver_spool(folder, uri)


def main() -> None:
    """``python -m unio4_lib.tracking.sender SPOOL [LEFTOVERS]``; the address is the first line of input."""
    folder = Path(sys.argv[1])
    leftovers = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    uri = sys.stdin.readline().strip()
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    accompany(folder, uri, leftovers, ended)


if __name__ == "__main__":
    main()
