"""What starting costs: processor seconds of commands, and of a process of each stage before it works.

    python benchmarks/start_up.py [--tries 5]

Of several tries the least, as a busy machine only adds. A process of a stage is KFP's executor, with all that
the stage imports. Files of Python are compiled beforehand.
"""

import argparse
import os
import subprocess
import sys

from unio4_lib.methods.registry import find_method
from unio4_lib.runs import forks

COMMAND = (sys.executable, "-m", "unio4_lib.cli")
COMMANDS = {
    "unio4 --help": (*COMMAND, "--help"),
    "unio4 config show": (*COMMAND, "config", "show", "--dataset", "minari:a/b-v0"),
    "unio4 config show --method iql": (*COMMAND, "config", "show", "--dataset", "minari:a/b-v0")
    + ("--method", "iql"),
    "unio4 artifacts list --help": (*COMMAND, "artifacts", "list", "--help"),
    "unio4 dataset list": (*COMMAND, "dataset", "list"),
    "unio4 submit --help": (*COMMAND, "submit", "--help"),
    "unio4 run --help": (*COMMAND, "run", "--help"),
    "import torch": (sys.executable, "-c", "import torch"),
    "import mlflow": (sys.executable, "-c", "import mlflow"),
}
STAGE = "import kfp.dsl.executor, unio4_lib.cli.component, {module}"
FORKED = """
import os, {modules}
if not os.fork():
    import {module}
    os._exit(0)
used = os.wait4(-1, 0)[2]
print(used.ru_utime + used.ru_stime)
"""


def seconds(command: tuple[str, ...]) -> float:
    """Processor seconds of a process."""
    environment = os.environ | {"_KFP_RUNTIME": "true"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"error: {command} ends with {run.returncode}")
    return used.ru_utime + used.ru_stime


def seconds_of_fork(module: str) -> float:
    """The same of a fork, as a stage of a run on this machine is."""
    code = FORKED.format(modules=", ".join(forks.PRELOADED), module=module)
    environment = os.environ | {"_KFP_RUNTIME": "true"}
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=5)
    tries = range(parser.parse_args().tries)
    print("| Command | Processor seconds |\n|---|---|")
    for name, command in COMMANDS.items():
        print(f"| `{name}` | {min(seconds(command) for _ in tries):.2f} |", flush=True)
    print("\n| Stage | A process of its own | A fork |\n|---|---|---|")
    for step in find_method("unio4").steps:
        code = (sys.executable, "-c", STAGE.format(module=step.module))
        alone = min(seconds(code) for _ in tries)
        forked = min(seconds_of_fork(step.module) for _ in tries)
        print(f"| {step.name} | {alone:.2f} | {forked:.2f} |", flush=True)


if __name__ == "__main__":
    main()
