"""Which PyTorch goes into the images and into ``make install``, without asking any index."""

import os
import subprocess
from pathlib import Path

import pytest

INDEX = "https://example.org/whl/cpu"
# In place of pip: writes down what it is asked for, and has no PyTorch at that index.
PIP = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in *"--index-url {index}"*) echo "ERROR: retrying" >&2; exit {code};; esac
"""


def collect(
    repository: Path, folder: Path, index: str, code: int
) -> tuple[subprocess.CompletedProcess[str], str]:
    pip = folder / "pip"
    pip.write_text(PIP.format(log=folder / "log", index=INDEX, code=code))
    pip.chmod(0o755)
    command = [repository / "images" / "wheels.sh", pip, folder / "context", "3.11", index]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return found, (folder / "log").read_text()


def test_the_cpu_build_comes_from_its_index_alone(repository: Path, tmp_path: Path) -> None:
    found, asked = collect(repository, tmp_path, INDEX, 0)
    assert found.returncode == 0, found.stderr
    first, *others = asked.splitlines()
    assert f"--index-url {INDEX}" in first and "torch.txt" in first
    assert "--extra-index-url" not in asked
    assert not any(INDEX in line for line in others)


def test_an_index_out_of_reach_ends_it_with_one_line(repository: Path, tmp_path: Path) -> None:
    found, asked = collect(repository, tmp_path, INDEX, 1)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert f"no PyTorch for the CPU at {INDEX}; TORCH_INDEX=..." in found.stderr
    assert asked.count("\n") == 1  # nothing else was fetched


def test_another_build_is_whatever_pip_finds(repository: Path, tmp_path: Path) -> None:
    found, asked = collect(repository, tmp_path, "", 1)
    assert found.returncode == 0, found.stderr
    assert "index-url" not in asked


@pytest.mark.parametrize(
    ("given", "gpu", "takes_cpu"),
    [([], False, True), ([], True, False), (["TORCH=cpu"], True, True), (["TORCH=cuda"], False, False)],
)
def test_make_install_takes_the_small_build_unless_there_is_a_gpu(
    given: list[str], gpu: bool, takes_cpu: bool, repository: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "sed", "python3", "env"):
        place = next(
            Path(p) / name for p in os.environ["PATH"].split(os.pathsep) if (Path(p) / name).exists()
        )
        (tools / name).symlink_to(place)
    if gpu:
        (tools / "nvidia-smi").symlink_to("/bin/true")
    command = ["make", "-n", "install", f"VENV={tmp_path / 'venv'}", "TORCH_INDEX=" + INDEX, *given]
    if given == ["TORCH=cuda"]:
        command.remove("TORCH_INDEX=" + INDEX)
    told = subprocess.run(
        command, cwd=repository, env={"PATH": str(tools)}, capture_output=True, text=True, check=True
    ).stdout
    assert (f'--index-url "{INDEX}" torch' in told) == takes_cpu


def test_images_are_built_without_the_environment_of_the_project(repository: Path, tmp_path: Path) -> None:
    command = ["make", "-n", "images", f"VENV={tmp_path / 'venv'}", "DOCKER=docker"]
    told = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert "images/wheels.sh build/pip/bin/pip" in told and "--target $image" in told
    assert str(tmp_path) not in told and ".venv" not in told
