"""A sweep on a cluster: a run for each member, so many at a time, and one that makes the leaderboard.

One run of KFP for all members would end at about a dozen: Argo keeps the state of a run in one object of at
most a megabyte. Runs are found again by their names, so the same command goes on where another one stopped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from unio4_lib.runs.cluster import Cluster, Patience, Version
from unio4_lib.runs.spec import Values
from unio4_lib.stages.sweep import Member

SUCCEEDED = "SUCCEEDED"
TABLE_MARK = "| Dataset | Method |"  # of the leaderboard in a log


@dataclass
class ClusterSweep:
    """What is known of the members; ``failures`` has a line for each that did not come to a good end."""

    cluster: Cluster
    pipelines: Mapping[str, Path | Version]  # by method
    arguments: Callable[[Member], Values]
    experiment: str
    parallel: int
    say: Callable[[str], None]
    waiting: list[Member] = field(default_factory=list)
    active: dict[str, Member] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, members: Sequence[Member], *, again: bool, to_the_end: bool) -> None:
        """All members, as far as they are not done; to the end, or until all have begun."""
        self._find(members, again=again)
        self._go_on(to_the_end=to_the_end)

    def _find(self, members: Sequence[Member], *, again: bool) -> None:
        """What an earlier command has left: done, under way, or still to be started."""
        known = self.cluster.runs(self.experiment, f"{members[0].sweep} ")
        for member in members:
            run_id, state = known.get(member.name, ("", ""))
            if run_id and state not in Cluster.ENDED:
                self.active[run_id] = member
                self.say(f"{member.name}: {state.lower()}")
            elif state == SUCCEEDED and not again:
                self.say(f"{member.name}: done before")
            else:
                self.waiting.append(member)

    def _go_on(self, *, to_the_end: bool) -> None:
        """Start members as others end; return when all have begun, or when all have ended."""
        patience = Patience()
        while True:
            while self.waiting and len(self.active) < self.parallel:
                member = self.waiting[0]
                run_id = self.cluster.submit(
                    self.pipelines[member.method], self.arguments(member), member.name, self.experiment
                )
                self.active[run_id] = self.waiting.pop(0)
                self.say(f"{member.name}: started; {self.cluster.page(run_id)}")
            if not self.waiting and not (to_the_end and self.active):
                return
            patience.pause()
            for run_id in list(self.active):
                answer = patience.ask(partial(self.cluster.look, run_id, {}))
                if answer is not None and answer[0] in Cluster.ENDED:
                    self._end(run_id, answer[0])

    def _end(self, run_id: str, state: str) -> None:
        member = self.active.pop(run_id)
        if state != SUCCEEDED:
            reason = self.cluster.reason(run_id) or f"see {self.cluster.page(run_id)}"
            self.failures[member.name] = f"{state.lower()}: {reason}"
        self.say(f"{member.name}: {self.failures.get(member.name, state.lower())}")


def stop_all(cluster: Cluster, sweep: str, experiment: str) -> list[str]:
    """End what is under way of a sweep; returns the names."""
    running = {
        name: run_id
        for name, (run_id, state) in cluster.runs(experiment, f"{sweep} ").items()
        if state not in Cluster.ENDED
    }
    for run_id in running.values():
        cluster.stop(run_id)
    return list(running)


def table_of(logs: Iterator[str]) -> str | None:
    """The leaderboard in the logs of its run."""
    for log in logs:
        _, mark, rest = log.partition(TABLE_MARK)
        if mark:
            lines = (mark + rest).splitlines()
            end = next((at for at, line in enumerate(lines) if line and line[0] not in "|O"), len(lines))
            return "\n".join(lines[:end]).rstrip()
    return None
