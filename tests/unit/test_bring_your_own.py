"""The page about own environments and data, executed as a reader would: its files, then its commands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import SETTINGS

from unio4_lib.errors import InputError
from unio4_lib.sim.registry import find_spec

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bring-your-own.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [body for found, body in FENCE.findall(PAGE.read_text(encoding="utf-8")) if found == language]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder with the page's files; ``unio4`` is ours, its runs are tiny."""
    for body in blocks("python"):
        name = body.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(body)
    tiny = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    programs = tmp_path / "bin"
    programs.mkdir()
    # A folder that happens to be the present one is not on Python's path, as with an installed command.
    (programs / "unio4").write_text(
        "#!/bin/sh\n"
        f'[ "$1" != run ] || set -- "$@" --tracking none {shlex.join(tiny)}\n'
        f'PYTHONPATH="$PYTHONPATH:{ROOT}" exec {sys.executable} -m unio4_lib.cli.commands "$@"\n'
    )
    (programs / "unio4").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    return tmp_path


def shell(desk: Path, script: str) -> str:
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=desk, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_page_leads_to_a_result(desk: Path) -> None:
    """By processes, as the page does it, and in one process."""
    commands = blocks("bash")
    assert sum("unio4 run" in body for body in commands) == 1
    shell(desk, "".join(commands))
    for script in ("", f"{commands[0]}unio4 run --dataset minari:cart/log-v0 --runner inline --seed 5"):
        shell(desk, script)
        summary = json.loads((desk / "runs" / "latest" / "summary.json").read_text())
        assert summary["dataset"]["env_id"] == "my_robot:Cart-v0"
        assert set(summary["scores"]) == {"behavior", "start", "offline", "online"}
        assert (desk / "runs" / "latest" / "report.html").is_file()
    assert len(list((desk / "runs").glob("*/summary.json"))) >= 2


def test_a_module_that_is_not_found_is_said() -> None:
    with pytest.raises(InputError, match=r"'no_robot' cannot be imported .*PYTHONPATH"):
        find_spec("no_robot:Cart-v0")
    with pytest.raises(InputError, match=r"'Cart-v0' is not registered.*of your own is <module>:<id>"):
        find_spec("Cart-v0")


def test_the_hint_about_images_names_what_is_there() -> None:
    (dockerfile,) = blocks("dockerfile")
    image, folder = re.findall(r"FROM unio4/([\w-]+):|COPY \S+ (/\S+)/", dockerfile)
    recipe = (ROOT / "images" / "Dockerfile").read_text()
    assert f"AS {image[0]}\n" in recipe
    assert folder[1] in recipe
