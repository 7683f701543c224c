"""The folder where a stage computes is swept by the last one at work there, and by nobody before."""

import threading
from pathlib import Path

from unio4_lib.stages.work_folder import shared

CHECKPOINT, LEFT_BY_A_KILLED_WRITER = "state-1.ckpt", ".state-0.ckpt.deadbeef.tmp"


def leave_something(folder: Path) -> None:
    (folder / "artifact-dead").mkdir(parents=True)
    (folder / "artifact-dead" / "half.json").write_text("{")
    (folder / LEFT_BY_A_KILLED_WRITER).write_bytes(b"half")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_what_the_killed_left_goes_and_checkpoints_stay(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    leave_something(folder)
    (folder / CHECKPOINT).write_bytes(b"whole")
    with shared(folder):
        assert len(names(folder)) == 3  # a writer may be alive
    assert names(folder) == {CHECKPOINT}
    with shared(folder):
        (folder / CHECKPOINT).unlink()
    assert not folder.exists()


def test_only_the_last_one_sweeps(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with shared(folder):
        with shared(folder):
            leave_something(folder)
        assert names(folder) == {"artifact-dead", LEFT_BY_A_KILLED_WRITER}
    assert not folder.exists()


def test_a_folder_that_was_deleted_and_made_by_another_is_not_swept(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with shared(folder):
        folder.rename(tmp_path / "deleted")
        another = shared(folder)
        with another:
            leave_something(folder)
            (folder / CHECKPOINT).write_bytes(b"whole")
        leave_something(folder)
    assert names(folder) == {"artifact-dead", LEFT_BY_A_KILLED_WRITER, CHECKPOINT}


def test_nobody_loses_the_folder_while_others_come_and_go(tmp_path: Path) -> None:
    folder, problems = tmp_path / "work", []

    def work(name: str) -> None:
        for number in range(200):
            try:
                with shared(folder):
                    path = folder / f"artifact-{name}-{number}"
                    path.mkdir()
                    path.rmdir()
            except OSError as error:
                problems.append(error)

    workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    assert not folder.exists()
