"""Small pipelines of components that only sleep, write or fail; compiled by KFP as the real ones are."""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

SLOW_SECONDS = 120.0  # longer than a busy machine takes to end a task


@dsl.component(base_image="python", install_kfp_package=False)
def note(folder: str, name: str, seconds: float, value: int = 0) -> str:
    import time
    from pathlib import Path

    began = time.time()
    time.sleep(seconds)
    Path(folder, name).write_text(f"{began} {time.time()} {value!r}")
    return name


@dsl.component(base_image="python", install_kfp_package=False)
def meet(folder: str, name: str, other: str) -> str:
    import time
    from pathlib import Path

    began = time.time()
    Path(folder, f"{name}-came").touch()
    while not Path(folder, f"{other}-came").exists():
        if time.time() > began + 120.0:  # a busy machine is slow, not stuck
            raise TimeoutError(f"{other} does not come")
        time.sleep(0.01)
    Path(folder, name).write_text(f"{began} {time.time()} None")
    return name


@dsl.component(base_image="python", install_kfp_package=False)
def look_around(folder: str) -> None:
    import json
    import os
    import sys
    from pathlib import Path

    found = {"torch": "torch" in sys.modules, "seen": os.environ.get("SEEN"), "pid": os.getpid()}
    Path(folder, f"found-{os.getpid()}").write_text(json.dumps(found))
    os.environ["SEEN"] = "changed"


@dsl.component(base_image="python", install_kfp_package=False)
def end_with(folder: str, name: str, codes: list) -> str:
    import os
    import signal
    import sys
    from pathlib import Path

    count = len(list(Path(folder).glob(f"{name}-*")))
    Path(folder, f"{name}-{count}").touch()
    code = codes[count]
    if code == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if code:
        sys.stderr.write(f"error: {name} ends with {code}\n")
        sys.exit(int(code))
    return "go"


@dsl.component(base_image="python", install_kfp_package=False)
def write_status(folder: str, status: dsl.PipelineTaskFinalStatus) -> None:
    from pathlib import Path

    Path(folder, "status").write_text(status.state)


def compiled_to(pipeline: BaseComponent, folder: Path) -> Path:
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


@dsl.pipeline(name="side-by-side")
def side_by_side(folder: str) -> None:
    left = meet(folder=folder, name="left", other="right").set_display_name("left")
    right = meet(folder=folder, name="right", other="left").set_display_name("right")
    note(folder=folder, name="after", seconds=0.0).after(left, right)


@dsl.pipeline(name="looking")
def looking(folder: str) -> None:
    look_around(folder=folder).set_display_name("first")
    look_around(folder=folder).set_display_name("second")


@dsl.pipeline(name="retried")
def retried(folder: str, codes: list) -> None:
    task = end_with(folder=folder, name="first", codes=codes).set_retry(2, backoff_duration="0s")
    note(folder=folder, name="second", seconds=0.0).after(task)


@dsl.pipeline(name="closed")
def closed(folder: str, codes: list) -> None:
    with dsl.ExitHandler(write_status(folder=folder), name="inside"):
        task = end_with(folder=folder, name="first", codes=codes)
        note(folder=folder, name="slow", seconds=SLOW_SECONDS)
        note(folder=folder, name="second", seconds=0.0).after(task)


@dsl.pipeline(name="branching")
def branching(folder: str, codes: list, other: str) -> None:
    task = end_with(folder=folder, name="first", codes=codes)
    with dsl.If(task.output == "go", name="then"):
        with dsl.If(other == "yes", name="inner"):
            note(folder=folder, name="yes", seconds=0.0)
        with dsl.Else(name="inner-else"):
            note(folder=folder, name="no", seconds=0.0)
    with dsl.Else(name="else"):
        note(folder=folder, name="never", seconds=0.0)


@dsl.pipeline(name="all")
def all_members(folder: str, members: list) -> None:
    with dsl.ParallelFor(members, parallelism=2) as member:
        task = end_with(folder=folder, name=member.first, codes=member.codes)
        note(folder=folder, name=member.last, seconds=0.0, value=member.number).after(task)


@dsl.pipeline(name="loop")
def loop(folder: str, members: list) -> None:
    running = all_members(folder=folder, members=members)
    note(folder=folder, name="board", seconds=0.0, value=0).after(running).ignore_upstream_failure()
