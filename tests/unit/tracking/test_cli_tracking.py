"""``unio4 ui`` and ``unio4 tracking flush`` where there is nothing to show or to send."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_process import free_port
from survivors import left_behind, until
from tiny_runs import call

from unio4_lib.tracking.spool import Outbox, Target

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "5"), ("BACKOFF_FACTOR", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_ui_needs_runs_and_a_free_port(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = call(capsys, "ui", "--output", str(tmp_path))
    assert code == 2
    assert "nothing was tracked here" in err
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = call(capsys, "ui", "--output", str(tmp_path), "--port", str(port))
    assert code == 2
    assert f"--port {port}: cannot be used" in err


SLOW_SERVER = """
import http.server, os, pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "worker of {marker}"])
time.sleep(1.0)
pathlib.Path("{marker}").write_text(os.environ.get("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "not set"))
place = ("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))
http.server.HTTPServer(place, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_ui_speaks_when_it_answers_and_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """A server that is slow to answer and has a worker, in place of MLflow's."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "health").touch()
    (tmp_path / "mlflow.db").touch()
    marker = tmp_path / "answers-now"
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text(SLOW_SERVER.format(marker=marker))
    port = free_port()
    command = [sys.executable, "-m", "unio4_lib.cli", "ui", "--output", str(tmp_path), "--port", str(port)]
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said, answered, at_work = process.stdout.readline(), marker.exists(), left_behind(str(tmp_path))
        process.send_signal(number)
        code = process.wait(60)
    # Here, as a failure inside would wait for a process that nobody ends.
    assert f"http://127.0.0.1:{port} shows the runs" in said
    assert answered
    assert at_work
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    until(lambda: not left_behind(str(tmp_path)))
    assert marker.read_text() == "false"  # the server's runner of jobs would stay behind


def test_flush_says_what_is_left(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = call(capsys, "tracking", "flush", str(tmp_path))
    assert code == 2
    assert "nothing was tracked here" in err
    with socket.socket() as closed:  # a port at which nobody answers
        closed.bind(("127.0.0.1", 0))
        folder = tmp_path / "a-run" / "tracking"
        outbox = Outbox(folder, "run")
        Target(f"http://127.0.0.1:{closed.getsockname()[1]}", "e", "r", "k").save(folder)
        outbox.append("begin", stage=None, fingerprint=None)
        outbox.append("end", status="FINISHED")
        outbox.close()
        code, out, err = call(capsys, "tracking", "flush", str(tmp_path))
    assert (code, err) == (75, "")
    assert "0 lines sent, 2 left; the MLflow server does not answer" in out


def test_copies_of_a_database_that_were_left_go(tmp_path: Path) -> None:
    """Of a sender that was killed while MLflow built the tables; not of one that is at it."""
    delivery = pytest.importorskip("unio4_lib.tracking.delivery")
    (tmp_path / "mlflow.db").touch()
    for name in (".mlflow.db-old", ".mlflow.db-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").touch()
    os.utime(tmp_path / ".mlflow.db-old", (0, 0))
    delivery.make_database(tmp_path / "mlflow.db")
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db-new"}
