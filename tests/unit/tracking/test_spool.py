"""What stands on disk before anything is sent."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unio4_lib.errors import InputError, Preempted
from unio4_lib.progress import Stopped
from unio4_lib.tracking import spool
from unio4_lib.tracking.address import default_uri
from unio4_lib.tracking.spool import Outbox, Target
from unio4_lib.tracking.tracker import (
    NullTracker,
    StageTracker,
    Tracking,
    flatten,
    make_tracker,
    status_after,
)

NAMES = {"experiment": "e", "run_name": "r", "run_key": "k"}


def kinds(path: Path, offset: int = 0) -> list[str]:
    return [event["kind"] for event, _ in spool.read_events(path, offset)]


def test_a_torn_line_is_passed_over_and_what_follows_is_read(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "a")
    outbox.append("begin")
    outbox.append("metrics", step=1, values={"x": 1.0})
    outbox.close()
    path = tmp_path / "a.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # what a crash leaves
    assert kinds(path) == ["begin"]
    again = Outbox(tmp_path, "a")
    again.append("end", status="FINISHED")
    again.close()
    assert kinds(path) == ["begin", "end"]


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "a")
    for kind in ("begin", "metrics", "end"):
        outbox.append(kind)
    path = tmp_path / "a.jsonl"
    offsets = [offset for _, offset in spool.read_events(path)]
    assert kinds(path, offsets[1]) == ["end"]
    spool.record_sent(path, offsets[1])
    assert spool.count_waiting(tmp_path) == 1
    path.with_suffix(".sent").write_text("999999")  # of another file of that name: begin anew
    assert spool.sent_offset(path) == 0


def test_files_are_copied_at_once(tmp_path: Path) -> None:
    figure = tmp_path / "figure.svg"
    figure.write_text("first")
    outbox = Outbox(tmp_path / "spool", "a")
    outbox.append_file("artifact", figure, folder=None)
    figure.write_text("second")
    outbox.append_file("artifact", figure, folder=None)
    events = [event for event, _ in spool.read_events(tmp_path / "spool" / "a.jsonl")]
    assert [(tmp_path / "spool" / event["path"]).read_text() for event in events] == ["first", "second"]


def test_what_a_dead_process_left_open_was_killed(tmp_path: Path) -> None:
    for name, ended in (("open", []), ("closed", ["end"])):
        outbox = Outbox(tmp_path, name)
        for kind in ["begin", *ended]:
            outbox.append(kind, status="FINISHED")
        outbox.close()
    spool.end_open_outboxes(tmp_path)
    events = [event for event, _ in spool.read_events(tmp_path / "open.jsonl")]
    assert (events[-1]["kind"], events[-1]["status"]) == ("end", "KILLED")
    assert kinds(tmp_path / "closed.jsonl") == ["begin", "end"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with spool.locked(tmp_path, "lock") as first, spool.locked(tmp_path, "lock") as second:
        assert (first, second) == (True, False)


@pytest.mark.parametrize(
    "uri", ["mlruns", "file:///tmp/mlruns", "ftp://host", "http://", "sqlite:///", "databricks"]
)
def test_an_address_that_is_none(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tracking URI .*expected"):
        make_tracker(uri, **NAMES, spool=tmp_path)


@pytest.mark.parametrize("name", ["experiment", "run_name", "run_key"])
def test_names_that_would_break_a_search(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name):
        make_tracker("http://localhost:1", **{**NAMES, name: "it's"}, spool=tmp_path)


def test_registering_needs_a_server_and_an_alias_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without tracking"):
        Tracking(None, register="hopper").tracker("k", tmp_path, tmp_path, print)
    with pytest.raises(InputError, match="no registered model"):
        Tracking("http://localhost:1", alias="champion").tracker("k", tmp_path, tmp_path, print)


def test_a_password_is_never_written(tmp_path: Path) -> None:
    uri = "http://someone:secret@localhost:1"
    target = Target("http://localhost:1", "e", "r", "k")
    tracker = make_tracker(uri, **NAMES, spool=tmp_path)
    assert getattr(tracker, "target", None) == target
    target.save(tmp_path)
    assert Target.load(tmp_path) == target
    with pytest.raises(InputError) as caught:
        make_tracker("ftp://someone:secret@localhost", **NAMES, spool=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", [None, "none"])
def test_no_tracking_writes_nothing(uri: str | None, tmp_path: Path) -> None:
    with make_tracker(uri, **NAMES, spool=tmp_path / "spool") as tracker:
        assert isinstance(tracker, NullTracker)
        with tracker.run() as run, tracker.stage("s", "f") as stage:
            for one in (run, stage):
                one.log_metrics({"x": 1.0}, 0)
                one.log_params({"a": 1})
                one.log_artifact(tmp_path / "is not there")
    assert list(tmp_path.iterdir()) == []


def test_where_numbers_go_if_nobody_says(tmp_path: Path) -> None:
    assert default_uri(tmp_path, {}) == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_uri(tmp_path, {"MLFLOW_TRACKING_URI": "http://there"}) == "http://there"
    assert default_uri(None, {}) is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), "FAILED"),
        (Stopped(), "KILLED"),
        (Preempted(), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(75), "KILLED"),
    ],
)
def test_how_it_ended(error: BaseException, status: str) -> None:
    assert status_after(error) == status


def test_settings_have_names_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


def test_logging_costs_microseconds(tmp_path: Path) -> None:
    stage = StageTracker(Outbox(tmp_path, "a"))
    values = {f"stage/metric{i}": 0.123456789 for i in range(20)}
    began = time.perf_counter()
    for step in range(1000):
        stage.log_metrics(values, step)
    # 0.04 s on a busy core; asking a server takes 50 s.
    assert time.perf_counter() - began < 2.0
    assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 1000


def test_training_never_imports_mlflow() -> None:
    code = "import sys, unio4_lib.tracking.tracker, unio4_lib.stages.runner; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_numbers_survive_the_end_of_the_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from unio4_lib.tracking.spool import Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]), 'a')\n"
        "for i in range(100): outbox.append('metrics', step=i)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env=dict(os.environ))
    assert done.returncode == -9
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(100))
