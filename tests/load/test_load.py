"""Many artifacts, many runs at once, runs for a long time; ``make test-load`` asks for much more of each."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import many_artifacts
import pytest
import soak
from many_artifacts import COMMANDS
from marked_table import write_table
from mlflow_process import MlflowServer
from tiny_runs import call, saved_recording

SEED = int(os.environ.get("UNIO4_LOAD_SEED", "0"))
ARTIFACTS = int(os.environ.get("UNIO4_LOAD_ARTIFACTS", "0"))
RUNS = int(os.environ.get("UNIO4_LOAD_RUNS", "0"))
MINUTES = float(os.environ.get("UNIO4_SOAK_MINUTES", "0"))
TABLE = os.environ.get("UNIO4_LOAD_TABLE")

SECONDS_FOR_A_THOUSAND = 2.0  # of the processor: how busy others keep it is not ours
PAGES = 10  # rclone goes through its whole bucket for each page of a list: so many fewer artifacts there
FEW = 5 * many_artifacts.IN_A_RUN
READS = {"list": 1, "verify": 2, "gc": 1}  # of each manifest
TWICE = 3.0  # calls for twice as many: a sort has a little more than two, a search in a list four
CAMPAIGN = "make test-load does"

Figures = dict[str, str]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What was measured; written down where a page for it is named and nothing has failed."""
    found: Figures = {}
    failed_before = request.session.testsfailed
    yield found
    if TABLE and found and request.session.testsfailed == failed_before:
        write_table(Path(TABLE), "load", table(found))


def table(found: Figures) -> str:
    rows = [f"| {what} | {figure} |" for what, figure in found.items()]
    where = f"Seed {SEED}, {os.cpu_count()} cores; all as it should be."
    return "\n".join([where, "", "| What | Figures |", "|---|---|", *rows])


@pytest.mark.parametrize("name", COMMANDS)
def test_twice_as_many_artifacts_cost_twice_as_much(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted in calls, which are the same on any machine."""
    costs = []
    for count in (FEW, 2 * FEW):
        root = tmp_path / f"{count}"
        old = many_artifacts.fill(root, count, SEED, tmp_path)
        words = ["artifacts", *COMMANDS[name], "--artifact-root", str(root)]
        said: list[tuple[int, str, str]] = []
        costs.append(many_artifacts.calls(lambda words=words, said=said: said.append(call(capsys, *words))))
        assert many_artifacts.told(name, said[0][1]) == many_artifacts.expected(name, count, old)
    few, many = costs
    grown = {place: n for place, n in many.items() if n >= 2 * FEW and n > TWICE * few[place]}
    assert grown == {}
    read = [n for (_, function, _), n in many.items() if function == "from_bytes"]
    assert read == [READS[name] * 2 * FEW]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "S3"])
def test_many_artifacts(kind: str, figures: Figures, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not ARTIFACTS:
        pytest.skip(CAMPAIGN)
    place, count = tmp_path / "root", ARTIFACTS
    if kind == "S3":
        place, count = request.getfixturevalue("bucket") / "root", ARTIFACTS // PAGES
    old = many_artifacts.fill(place, count, SEED, tmp_path)
    root = str(place) if kind == "folder" else f"s3://{place.parent.name}/root"
    thousands, costs, texts = count / 1000, [], []
    for name in COMMANDS:
        took, used, said = many_artifacts.timed(root, name, tmp_path)
        assert many_artifacts.told(name, said) == many_artifacts.expected(name, count, old)
        costs.append(used / thousands)
        texts.append(f"{name} {took / thousands:.2f} s, {used / thousands:.2f} s of the processor")
    figures[f"{count:,} artifacts in one root, {kind}"] = "for each thousand: " + "; ".join(texts)
    if kind == "folder":  # each object on S3 is a request, which costs boto3 milliseconds
        assert max(costs) < SECONDS_FOR_A_THOUSAND, texts


@pytest.mark.slow
@pytest.mark.services
def test_many_runs_at_once(
    figures: Figures, dataset: str, mlflow_server: MlflowServer, bucket: Path, tmp_path: Path
) -> None:
    if not RUNS:
        pytest.skip(CAMPAIGN)
    import runs_at_once

    began = time.monotonic()
    root = f"s3://{bucket.name}/root"
    runs = runs_at_once.together(RUNS, dataset, tmp_path, root, mlflow_server.uri)
    took = time.monotonic() - began
    late = runs_at_once.deliver_the_rest(runs)
    points = runs_at_once.check_tracking(runs, mlflow_server.uri)
    runs_at_once.check_artifacts(runs, dataset, tmp_path, SEED)
    figures[f"{RUNS} runs at once, one MLflow server, one S3 server"] = (
        f"all FINISHED in {took:.0f} s; {points:,} numbers, none lost, of {late} runs by a flush afterwards"
    )


@pytest.mark.slow
def test_runs_one_after_another_leave_nothing(dataset: str, figures: Figures, tmp_path: Path) -> None:
    if not MINUTES:
        pytest.skip(CAMPAIGN)
    soaked(figures, "in one process", soak.in_one_process(soak.Machine(tmp_path), dataset, MINUTES / 2))


@pytest.mark.slow
def test_commands_one_after_another_leave_nothing(dataset: str, figures: Figures, tmp_path: Path) -> None:
    if not MINUTES:
        pytest.skip(CAMPAIGN)
    soaked(figures, "by `unio4 run`", soak.by_command(soak.Machine(tmp_path), dataset, MINUTES / 2))


def soaked(figures: Figures, how: str, readings: list[soak.Reading]) -> None:
    first, last = soak.quarters(readings)
    seen = [f"{name} {first[name]:,.0f} → {last[name]:,.0f}" for name in first]
    figures[f"{len(readings)} runs {how}"] = "; ".join(seen)
    assert soak.growth(readings) == {}


@pytest.mark.parametrize(("name", "step"), [("memory", 6 << 20), ("threads", 1), ("bytes left", 1)])
def test_growth_is_seen(name: str, step: int) -> None:
    steady = {"memory": 400 << 20, "threads": 3, "bytes left": 0}
    readings = [{**steady, name: steady[name] + number * step} for number in range(12)]
    assert list(soak.growth(readings)) == [name]
    assert soak.growth([steady] * 12) == {}
