"""``unio4 ui`` and ``unio4 tracking flush`` where there is nothing to show or to send."""

import socket
import subprocess
from pathlib import Path

import pytest
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


def test_ctrl_c_ends_the_ui(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(command: list[str], check: bool) -> None:
        raise KeyboardInterrupt

    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(subprocess, "run", interrupted)
    code, out, err = call(capsys, "ui", "--output", str(tmp_path), "--port", "49999")
    assert (code, err) == (0, "")
    assert "http://127.0.0.1:49999" in out


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
