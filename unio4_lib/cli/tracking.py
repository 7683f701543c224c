"""``unio4 ui``, ``unio4 tracking flush`` and ``unio4 export``."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, get_args

import typer

from unio4_lib.cli.app import App
from unio4_lib.errors import InputError
from unio4_lib.runs.processes import signal_group, start_guarded, wait_for

HOST = "127.0.0.1"
EXIT_TRY_AGAIN = 75  # as everywhere; the module of the other codes imports this one
RUNS = Path("runs")
POLL_SECONDS, GRACE_SECONDS = 0.5, 5.0

FORMATS = ("onnx", "torch-export", "torchscript")  # known before PyTorch is loaded
app = App()
tracking_app = App(help="Numbers on their way to MLflow.")
app.add_typer(tracking_app, name="tracking")


@tracking_app.callback()
def _tracking() -> None:
    # With a callback "flush" is a command of its own and not the only one, which would have no name.
    pass


@app.command("ui")
def show_ui(
    output: Annotated[Path, typer.Option("--output", help="Folder that holds the runs.")] = RUNS,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open MLflow's user interface on the runs of a folder."""
    from unio4_lib.tracking.address import DATABASE, check_uri

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
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    raise typer.Exit(_serve(command, f"http://{HOST}:{port}", output))


def _serve(command: list[str], address: str, output: Path) -> int:
    """Run a server until it ends or this process is asked to; says so once it answers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Nothing is computed there: its runner of jobs would stay behind on its own.
    server = start_guarded(command, env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ})
    try:
        while server.poll() is None and not _answers(address):
            time.sleep(POLL_SECONDS)
        if server.poll() is None:
            print(f"{address} shows the runs of {output}; Ctrl-C ends it", flush=True)
        return wait_for(server)
    except KeyboardInterrupt:  # as announced
        signal_group(server, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)
        signal_group(server, signal.SIGKILL)
        return 0


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=POLL_SECONDS):
            return True
    except OSError:
        return False


@tracking_app.command("flush")
def flush(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of runs, or of one.")] = RUNS,
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="Another address than the one that was given then.")
    ] = None,
) -> None:
    """Send to MLflow what could not be sent while it was away."""
    from unio4_lib.tracking import spool
    from unio4_lib.tracking.address import check_uri
    from unio4_lib.tracking.sender import deliver_spool
    from unio4_lib.tracking.tracker import SENDER_SETTINGS

    uri = check_uri(tracking) if tracking is not None else None
    spools = spool.spools_below(folder)
    if not spools:
        raise InputError(f"{folder}: nothing was tracked here; expected a run, or a folder of runs")
    os.environ.update({name: value for name, value in SENDER_SETTINGS.items() if name not in os.environ})
    left = 0
    for place in spools:
        waiting = spool.count_waiting(place)
        if waiting > 0:
            state = deliver_spool(place, uri)
            still = spool.count_waiting(place)
            left += still
            trouble = f"; {state['trouble']}" if state["trouble"] else ""
            print(f"{place}: {max(waiting - still, 0):,} lines sent, {still:,} left{trouble}")
            if state["refused"]:
                print(f"{place}: MLflow refused {state['refused']}; {spool.REFUSED} there says what and why")
    if left > 0:
        raise typer.Exit(EXIT_TRY_AGAIN)
    print("nothing is left to send")


@app.command("export")
def export(
    place: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, a policy, or an artifact (folder, URI, reference).")
    ],
    output: Annotated[Path, typer.Option("--output", help="The file to write.")],
    form: Annotated[str, typer.Option("--format", help="onnx, torch-export or torchscript.")] = "onnx",
    member: Annotated[int, typer.Option("--member", min=0, help="Which policy, if there are several.")] = 0,
) -> None:
    """Write a policy as one file for other software, checked against the policy."""
    if form not in FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    from unio4_lib.nets.files import WEIGHTS, load_policy
    from unio4_lib.runs.score_policy import policy_folder
    from unio4_lib.serving.export import Format, export_policy

    known = get_args(Format)
    with policy_folder(place) as folder:
        policy, facts = load_policy(folder)
        facts["policy_sha256"] = sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    difference = export_policy(policy, output, known[known.index(form)], member=member, facts=facts)
    size = output.stat().st_size
    print(f"{output}: {form}, {size:,} bytes, differs from the policy by at most {difference:.1e}")
    if facts.get("acts") == "sampled":
        print("note: this policy was delivered with sampled actions; the file gives its mean action")
