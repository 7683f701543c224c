"""The fault campaign: a stage is hurt at a random moment, and ends with the undisturbed result after a rerun.

``make test-faults FAULTS=200`` draws so many and writes what came of them into docs/reliability.md; a fault
depends on the seed and its number alone.
"""

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from faulty_stage import Running, command, start

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import FolderStore
from unio4_lib.methods.registry import find_method
from unio4_lib.settings.model import RunConfig
from unio4_lib.settings.pages import config_yaml

LONGEST_SECONDS = 600.0  # a busy machine is slow, not stuck
REFUSED, FAILED, TRY_AGAIN, INTERRUPTED = 2, 1, 75, 130
OUTCOMES = AT_ONCE, RERUN, LINE = ("at once", "after a rerun", "after a line and a rerun")


@dataclass
class Undisturbed:
    """A method's run that nothing happened to: its artifacts, and how long each stage took."""

    method: str
    folder: Path
    refs: dict[str, ArtifactRef] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def run(cls, config: RunConfig, folder: Path) -> "Undisturbed":
        folder.mkdir(parents=True)
        (folder / "settings.yaml").write_text(config_yaml(config))
        made = cls(config.method, folder)
        for step in find_method(config.method).steps:
            began = time.monotonic()
            finish(made, step.name, folder / step.name, made.root)
            made.seconds[step.name] = time.monotonic() - began
            made.refs[step.kind] = ArtifactRef.load(folder / step.name / "ref.json")
        return made

    @property
    def settings(self) -> Path:
        return self.folder / "settings.yaml"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def words(self, stage: str, place: Path, root: Path) -> list[str]:
        inputs = {kind: self.refs[kind] for kind in find_method(self.method).step(stage).inputs}
        seen = {
            kind: ref.model_copy(update={"uri": f"{root}/artifacts/{ref.digest}"})
            for kind, ref in inputs.items()
        }
        return command(stage, self.settings, root, seen, place)


def finish(made: Undisturbed, stage: str, place: Path, root: Path) -> None:
    """Run a stage to its end, which has to be a good one."""
    running = start(made.words(stage, place, root), place)
    code, said = running.wait(LONGEST_SECONDS), running.said()
    assert code == 0, (stage, code, said)


@dataclass
class Case:
    """One stage that something is about to happen to."""

    made: Undisturbed
    stage: str
    folder: Path
    random: random.Random

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def place(self) -> Path:
        return self.folder / "first"

    def begin(self, **surroundings: object) -> Running:
        return start(self.made.words(self.stage, self.place, self.root), self.place, **surroundings)  # type: ignore[arg-type]

    def moment(self) -> float:
        """Somewhere in the time that the stage takes."""
        return self.random.uniform(0.0, 1.1 * self.made.seconds[self.stage])

    def signalled(self, number: int, *, group: bool = False) -> Running:
        running = self.begin()
        running.wait(self.moment())
        running.signal(number, group=group)
        return running


def killed(case: Case) -> Running:
    return case.signalled(signal.SIGKILL)


def group_killed(case: Case) -> Running:
    return case.signalled(signal.SIGKILL, group=True)


def terminated(case: Case) -> Running:
    return case.signalled(signal.SIGTERM)


def interrupted(case: Case) -> Running:
    return case.signalled(signal.SIGINT)


def file_cut(case: Case) -> Running:
    """No file grows beyond a random byte."""
    return case.begin(largest_file=int(10 ** case.random.uniform(0.0, 5.5)))


def cache_full(case: Case) -> Running:
    """The cache lies on a disk of a few pages."""
    return case.begin(small_disk=(case.place / "cache", 4096 * case.random.randrange(1, 64)))


def root_read_only(case: Case) -> Running:
    return case.begin(read_only=case.root)


def cache_deleted(case: Case) -> Running:
    running = case.begin()
    running.wait(case.moment())
    shutil.rmtree(case.place / "cache", ignore_errors=True)
    return running


def artifact_damaged(case: Case) -> Running:
    """A bit of a random file of an input has changed."""
    kinds = find_method(case.made.method).step(case.stage).inputs
    folders = [case.root / "artifacts" / case.made.refs[kind].digest for kind in kinds]
    flip(case.random, [path for folder in folders for path in folder.rglob("*") if path.is_file()])
    return case.begin()


def checkpoint_damaged(case: Case) -> Running:
    """Killed; then a bit of its newest checkpoint changes, here and in the store."""
    running = case.signalled(signal.SIGKILL)
    running.wait()
    for place in (case.place / "cache/work", case.root / "checkpoints"):
        files = sorted(place.rglob("state-*.ckpt"), key=lambda path: path.stat().st_mtime)
        flip(case.random, files[-1:])
    return running


def flip(source: random.Random, paths: Iterable[Path]) -> None:
    files = [path for path in sorted(paths) if path.stat().st_size]
    if files:
        path = source.choice(files)
        data = bytearray(path.read_bytes())
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        path.write_bytes(data)


FAULTS: dict[str, Callable[[Case], Running]] = {
    "SIGKILL": killed,
    "SIGKILL of the group": group_killed,
    "SIGTERM": terminated,
    "SIGINT": interrupted,
    "file cut at a byte": file_cut,
    "cache on a full disk": cache_full,
    "read-only root": root_read_only,
    "cache deleted": cache_deleted,
    "damaged input": artifact_damaged,
    "damaged checkpoint": checkpoint_damaged,
}
WITH_MOUNTS = ("cache on a full disk", "read-only root")
CODES = {
    "SIGKILL": {0, -signal.SIGKILL},
    "SIGKILL of the group": {0, -signal.SIGKILL},
    # A process that has not begun with the command yet ends as any other.
    "SIGTERM": {0, TRY_AGAIN, -signal.SIGTERM},
    "SIGINT": {0, INTERRUPTED, FAILED},
    "damaged checkpoint": {0, -signal.SIGKILL},
}


def suffer(case: Case, fault: str) -> str:
    """Let it happen, look at what is left, run again; the outcome."""
    shutil.copytree(case.made.root, case.root)
    own = case.made.refs[find_method(case.made.method).step(case.stage).kind]
    forget(case.root, own)
    running = FAULTS[fault](case)
    code, said = running.wait(LONGEST_SECONDS), running.said()
    where = f"{fault}, {case.made.method} {case.stage}: {code} {said!r}"
    assert code in CODES.get(fault, {0, REFUSED}), where
    check_words(code, said, where)
    if fault != "damaged input":
        whole(case.root, where)
    if code != 0:
        run_again(case, where)
    assert result(case.root, case.place) == result(case.made.root, case.made.folder / case.stage), where
    return AT_ONCE if code == 0 else LINE if said else RERUN


def run_again(case: Case, where: str) -> None:
    """The same command on the same disk ends well, and nothing is left of what was begun."""
    finish(case.made, case.stage, case.place, case.root)
    whole(case.root, where)
    left = [path for path in (case.place / "cache/work").rglob("*") if path.is_file()]
    assert left == [], (where, left)


def result(root: Path, place: Path) -> object:
    """What the stage made, to the bit; of a report its numbers, as it also shows how long others took."""
    ref = ArtifactRef.load(place / "ref.json")
    if ref.kind != "report":
        return ref.digest
    summary = json.loads((root / "artifacts" / ref.digest / "summary.json").read_bytes())
    return {name: value for name, value in summary.items() if name != "stages"}


def forget(root: Path, ref: ArtifactRef) -> None:
    """As if the stage had never run: neither its artifact nor its fingerprint is there."""
    shutil.rmtree(root / "artifacts" / ref.digest)
    for path in (root / "fingerprints").iterdir():
        if ref.digest.encode() in path.read_bytes():
            path.unlink()


def check_words(code: int | None, said: str, where: str) -> None:
    """A refusal is one line, and nobody sees a traceback."""
    assert "Traceback" not in said, where
    if code in (REFUSED, TRY_AGAIN, INTERRUPTED):
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and said.splitlines()[-1] == errors[0], where


def whole(root: Path, where: str) -> None:
    """Nothing half-written: what the root has can be read, to the last bit."""
    store = FolderStore(root)
    assert store.manifests()[1] == {}, where
    for ref in store.list_artifacts():
        store.verify(ref)
    for folder in (root / "artifacts").iterdir():
        assert (folder / "manifest.json").is_file(), (where, folder)


def draw(
    seed: int, number: int, runs: Iterable[Undisturbed], faults: Iterable[str], folder: Path
) -> tuple[Case, str]:
    """The fault of that number, and the stage that it happens to."""
    source = random.Random(f"{seed}/{number}")
    fault = source.choice(sorted(faults))
    pairs = [(run, step.name) for run in runs for step in find_method(run.method).steps]
    if fault == "damaged input":
        pairs = [(run, name) for run, name in pairs if find_method(run.method).step(name).inputs]
    made, stage = source.choice(pairs)
    return Case(made, stage, folder / f"{number}", source), fault


Outcomes = Counter[tuple[str, str, str, str]]  # fault, method, stage, outcome


def table(outcomes: Outcomes, seed: int) -> str:
    """Stage by fault: how often the same result was there at once, after a rerun, after line and rerun."""
    stages = {(step.name, method): None for method in ("unio4", "iql") for step in find_method(method).steps}
    stages = {pair: None for pair in stages if any(key[1:3] == (pair[1], pair[0]) for key in outcomes)}
    lines = [
        f"{sum(outcomes.values())} faults, seed {seed}; all ended with the result of the undisturbed run.",
        "",
        "| Stage | " + " | ".join(FAULTS) + " |",
        "|---" * (len(FAULTS) + 1) + "|",
    ]
    for stage, method in stages:
        counts = [[outcomes[fault, method, stage, outcome] for outcome in OUTCOMES] for fault in FAULTS]
        cells = [" / ".join(map(str, cell)) if any(cell) else "" for cell in counts]
        lines.append(f"| {method}: {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
