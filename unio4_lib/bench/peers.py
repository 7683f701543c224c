"""Others' code beside ours, in a process of its own.

A peer is a command that knows nothing of this project. It prints one line of JSON, ``{"name": …, "loops":
[[name, unit], …]}``; then, for every line ``{"loop": name, "seconds": s}`` on its standard input, it lets
that loop work for about so long and prints ``[units, processor seconds, wall seconds]``.
"""

import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from unio4_lib.bench.meter import Sample
from unio4_lib.errors import InputError


class Peer:
    """A running command."""

    def __init__(self, command: str) -> None:
        self.command = command
        try:
            self.process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"--peer {command}: cannot be started ({error})") from error
        described = self._answer()
        try:
            self.name = str(described["name"])
            self.loops = [(str(name), str(unit)) for name, unit in described["loops"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._refusal(json.dumps(described)) from error

    def sample(self, loop: str, seconds: float) -> Sample:
        """One round of one of its loops."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the answer says how
            self.process.stdin.write(json.dumps({"loop": loop, "seconds": seconds}) + "\n")
            self.process.stdin.flush()
        answer = self._answer()
        try:
            units, processor, wall = map(float, answer)
        except (TypeError, ValueError) as error:
            raise self._refusal(json.dumps(answer)) from error
        return Sample(units, processor, wall)

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise self._refusal(line.strip() or f"it ended with status {self.process.wait()}") from error

    def _refusal(self, said: str) -> InputError:
        return InputError(
            f"--peer {self.command}: no figures came ({said}); expected a Python in which it is "
            "installed and one of benchmarks/speed_of_*.py"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(commands: Sequence[str]) -> Iterator[list[Peer]]:
    """All of them, until the end of the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(Peer(command)) for command in commands]
