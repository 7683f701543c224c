"""``unio4 ui``, ``unio4 tracking flush`` and ``unio4 export``."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

from unio4_lib.errors import InputError
from unio4_lib.tracking import spool
from unio4_lib.tracking.tracker import DATABASE, SENDER_SETTINGS, check_uri

HOST = "127.0.0.1"


def show_ui(output: Path, port: int) -> int:
    """Run MLflow's server on the database of a folder until it is interrupted; returns its exit code."""
    database = output.absolute() / DATABASE
    if not database.exists():
        raise InputError(f"{database}: nothing was tracked here; expected a folder of runs (--output)")
    uri = check_uri(f"sqlite:///{database}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"--port {port}: cannot be used ({error.strerror}); choose another") from error
    print(f"http://{HOST}:{port} shows the runs of {output}; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    return subprocess.run(command, check=False).returncode


def flush(folder: Path, uri: str | None) -> bool:
    """Deliver all spools below a folder; returns whether nothing is left."""
    from unio4_lib.tracking.sender import deliver_spool

    os.environ.update({name: value for name, value in SENDER_SETTINGS.items() if name not in os.environ})
    spools = spool.spools_below(folder)
    if not spools:
        raise InputError(f"{folder}: nothing was tracked here; expected a run, or a folder of runs")
    left = 0
    for place in spools:
        waiting = spool.count_waiting(place)
        if waiting == 0:
            continue
        state = deliver_spool(place, check_uri(uri) if uri is not None else None)
        still = spool.count_waiting(place)
        left += still
        trouble = f"; {state['trouble']}" if state["trouble"] else ""
        print(f"{place}: {waiting - still:,} of {waiting:,} lines sent{trouble}")
        if state["refused"]:
            print(f"{place}: MLflow refused {state['refused']}; {place / spool.REFUSED} says what and why")
    if left == 0:
        print("nothing is left to send")
    return left == 0


def export(place: str, output: Path, form: str, member: int) -> str:
    """Write a policy to a file; returns one line about it."""
    from unio4_lib.nets.files import load_policy
    from unio4_lib.score_policy import policy_folder
    from unio4_lib.serving.export import Format, export_policy

    if form not in get_args(Format):
        raise InputError(f"--format {form}: expected one of {', '.join(get_args(Format))}")
    with policy_folder(place) as folder:
        policy, _ = load_policy(folder)
    difference = export_policy(policy, output, form, member=member)  # type: ignore[arg-type]
    size = output.stat().st_size
    return f"{output}: {form}, {size:,} bytes, differs from the policy by at most {difference:.1e}"
