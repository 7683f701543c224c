"""Timing: units, medians, ratios, losses, others' code, and the command on every loop."""

import json
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import call

from unio4_lib.bench import peers
from unio4_lib.bench.figures import Bench, Figure, choose, kept_ratios, lasting_losses, losses, run_bench
from unio4_lib.bench.loops import Loop, all_loops
from unio4_lib.bench.machine import Limits
from unio4_lib.bench.meter import Meter, Sample, Timing, processor_seconds, timed
from unio4_lib.bench.world import World
from unio4_lib.errors import InputError
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.progress import Reporter

ROOT = Path(__file__).parents[3]
SMALL = ("device=cpu", "behavior.members=2", "behavior.weightings=['uniform']", "dynamics.hidden=[8]")
Capture = pytest.CaptureFixture[str]


def figure(name: str, ratio: float) -> Figure:
    return Figure(name, "update", Timing(1.0, 0.0, 1.0), ratio)


def bench_of(*figures: Figure) -> Bench:
    return Bench({}, {}, Limits(1.0, 1.0, 1.0, 1.0), list(figures))


def test_timing_is_of_one_unit_and_its_median_ignores_a_disturbed_round() -> None:
    samples = [Sample(10.0, 2.0, 4.0), Sample(20.0, 4.0, 8.0), Sample(10.0, 90.0, 900.0)]
    found = Timing.of(samples)
    assert (found.processor, found.wall) == (0.2, 0.4)
    assert Timing.of([Sample(4.0, 1.0, 1.0)]) == Timing(0.25, 0.0, 0.25)
    # Quartiles of 1, 2, 3, 4, 5 are 2 and 4; half their distance over the median 3.
    assert Timing.of([Sample(1.0, float(n), 1.0) for n in range(1, 6)]).spread == pytest.approx(1 / 3)


def test_work_is_repeated_for_its_time_and_done_at_least_once() -> None:
    calls: list[float] = []

    def work() -> float:
        calls.append(1.0)
        time.sleep(0.01)
        return 2.0

    assert timed(work, 0.0).units == 2.0
    found = timed(work, 0.055)
    assert found.units == 2.0 * (len(calls) - 1) >= 4.0
    assert found.wall >= 0.055
    assert found.processor < found.wall  # sleep is not work


def test_child_processes_count_as_processor_time() -> None:
    work = next(loop for loop in all_loops() if loop.name == "start of the command").make(
        SimpleNamespace()  # type: ignore[arg-type] # it looks at nothing
    )
    before, own = processor_seconds(), time.process_time()
    work()
    assert processor_seconds() - before > time.process_time() - own + 0.02


def test_all_parts_take_turns() -> None:
    order: list[str] = []

    def part(name: str) -> Any:
        return lambda: order.append(name) or 1.0  # type: ignore[func-returns-value]

    meter = Meter()
    for _ in range(2):
        meter.round({"a": part("a"), "b": part("b")}, 0.0)
    assert order == ["a", "b", "a", "b"]


def test_losses_are_beside_the_yardstick_and_beyond_what_is_tolerated() -> None:
    kept = {"cloning": 3.0, "critics": 3.0, "d3rlpy: iql": 1.0, "gone": 1.0}
    found = bench_of(
        figure("cloning", 4.1), figure("critics", 3.9), figure("d3rlpy: iql", 9.0), figure("new", 9.0)
    )
    assert list(losses(found, kept)) == ["cloning"]
    assert losses(found, kept)["cloning"].startswith(
        "cloning lost 27% of its speed: 4.1 yardsticks a update, 3"
    )
    assert list(losses(found, kept, tolerated=0.1)) == ["cloning", "critics"]


def test_what_is_slower_is_measured_again() -> None:
    """Only that, and only while it stays slower."""
    kept = {"cloning": 3.0, "critics": 3.0, "models": 3.0}
    first = bench_of(figure("cloning", 9.0), figure("critics", 9.0), figure("models", 3.0))
    asked = []

    def measure(loops: list[Loop]) -> Bench:
        asked.append([loop.name for loop in loops])
        return bench_of(*(figure(loop.name, 9.0 if loop.name == "critics" else 3.0) for loop in loops))

    assert list(lasting_losses(first, kept, measure)) == ["critics"]
    assert asked == [["cloning", "critics"], ["critics"]]
    assert lasting_losses(bench_of(figure("models", 3.0)), kept, measure) == {}
    assert len(asked) == 2


def test_ratios_outlive_a_file(tmp_path: Path) -> None:
    bench_of(figure("cloning", 4.0)).save(tmp_path / "kept.json")
    assert kept_ratios(tmp_path / "kept.json") == {"cloning": 4.0}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "not a saved benchmark ('schema')"),
        ("]", "not a saved benchmark"),
        ('{"schema": 99}', "schema 99; this release reads 1"),
        ('{"schema": 1, "figures": [{"name": "a"}]}', "not a saved benchmark ('ratio')"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "kept.json").write_text(text)
    with pytest.raises(InputError) as caught:
        kept_ratios(tmp_path / "kept.json")
    assert complaint in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        kept_ratios(tmp_path / "none.json")


def test_every_learner_of_the_house_is_timed() -> None:
    named = {loop.name for loop in all_loops()}
    assert {name for name in METHODS if find_method(name).pipeline == "offpolicy"} < named
    assert len(named) == len(all_loops())


def test_products_are_those_of_an_update(tmp_path: Path) -> None:
    """Four networks of [in, 8, out] for the models: three products each, forward and back."""
    world = World("Hopper-v5", 2_000, "quick", (*SMALL, "dynamics.members=4", "dynamics.elites=4"), tmp_path)
    found = run_bench(world, choose(["models"]), [], rounds=1, seconds=0.0, reporter=Reporter(None))
    rows, wide, out = 4 * 128, 11 + 3, 2 * 12 + 1
    # No gradient of the inputs is asked for: the first layer has two products, the last three.
    expected = 2 * rows * (2 * wide * 8 + 3 * 8 * out) / 1e9
    assert found.figures[0].products == pytest.approx(expected)
    share = expected / found.limits.products / found.figures[0].timing.processor
    assert found.figures[0].share == pytest.approx(share)
    assert torch.get_num_threads() >= 1


def test_the_command_measures_saves_and_compares(tmp_path: Path, capsys: Capture) -> None:
    words = ["bench", "--preset", "quick", "--rows", "2000", "--rounds", "1", "--seconds", "0.01", "--quiet"]
    words += ["--only", "cloning", "--only", "judging", "--only", "dataset", "--only", "artifact"]
    words += [word for text in SMALL for word in ("--set", text)]
    kept = tmp_path / "kept.json"
    code, table, _ = call(capsys, *words, "--save", str(kept))
    assert code == 0
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == [
        "cloning",
        "judging",
        "dataset",
        "artifact",
    ]
    saved = json.loads(kept.read_text())
    for entry in saved["figures"]:
        entry["ratio"] /= 1e6 if entry["name"] == "judging" else 1e-6
    kept.write_text(json.dumps(saved))
    code, table, _ = call(capsys, *words, "--check", str(kept))
    assert code == 1
    slower = [line for line in table.splitlines() if line.startswith("slower")]
    assert len(slower) == 1
    assert "judging lost 100% of its speed" in slower[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--only", "nothing"), "--only nothing: no such loop; expected one of cloning"),
        (
            ("--peer", "/nowhere/python it.py", "--only", "dataset"),
            "--peer /nowhere/python it.py: cannot be started",
        ),
        (
            ("--save", "/nowhere/at/all.json", "--only", "dataset"),
            "there is no folder /nowhere/at; make it first",
        ),
        (("--peer", "''", "--only", "dataset"), "cannot be started"),
        (("--peer", "echo []", "--only", "dataset"), "--peer echo []: no figures came ([])"),
        (("--set", "improve.step=3", "--only", "judging"), "improve.step"),
        (("--set", "iql.tau=0.5", "--only", "judging"), "nothing that is timed has this setting"),
    ],
)
def test_bad_words_are_one_line(words: tuple[str, ...], complaint: str, capsys: Capture) -> None:
    code, _, said = call(capsys, "bench", "--quiet", *words)
    assert (code, len(said.splitlines())) == (2, 1)
    assert complaint in said


def test_a_peer_answers_in_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(
        textwrap.dedent(
            """
            import json, sys
            print(json.dumps({"name": "other", "loops": [["iql", "update"]]}), flush=True)
            for line in sys.stdin:
                asked = json.loads(line)
                print(json.dumps([asked["seconds"] * 10, 2.0, 3.0]), flush=True)
            """
        )
    )
    with peers.running([f"{sys.executable} {tmp_path / 'it.py'}"]) as started:
        assert (started[0].name, started[0].loops) == ("other", [("iql", "update")])
        assert started[0].sample("iql", 0.5) == Sample(5.0, 2.0, 3.0)
    assert started[0].process.poll() is not None


def test_a_peer_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text("import nothing_of_this_name")
    with pytest.raises(InputError, match=r"no figures came \(it ended with status 1\)"):
        peers.Peer(f"{sys.executable} {tmp_path / 'it.py'}")


def test_a_peer_that_ends_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text('print(\'{"name": "other", "loops": []}\')')
    with peers.running([f"{sys.executable} {tmp_path / 'it.py'}"]) as started:
        started[0].process.wait()
        with pytest.raises(InputError, match="no figures came"):
            started[0].sample("iql", 0.5)


def test_gymnasium_stands_beside_the_simulator() -> None:
    with peers.running([f"{sys.executable} {ROOT / 'benchmarks' / 'speed_of_gymnasium.py'}"]) as started:
        found = started[0].sample("simulation", 0.01)
    assert found.units >= 512
    assert found.processor > 0.0
