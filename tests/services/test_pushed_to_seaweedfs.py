"""Datasets of every kind in the chart's own object store: pushed, read again bit for bit, harmed."""

import json
import shutil
from pathlib import Path

import pytest
from pushed_sources import HARM, KINDS, source_of
from servers import WeedBucket
from test_docs import commands
from tiny_runs import call

pytest.importorskip("boto3", reason='no boto3: pip install "unio4[s3]"')
pytestmark = pytest.mark.services

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_arrives_as_it_was(
    kind: str, weed_bucket: WeedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    source, target = source_of(kind, tmp_path, monkeypatch), f"s3://{weed_bucket.name}/logs/{kind}"
    code, out, err = call(capsys, "dataset", "push", source, target)
    assert (code, out) == (0, f"{target}\n"), err
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    facts = []
    for place in (target, source):
        code, out, err = call(capsys, "dataset", "inspect", place, "--json")
        assert code == 0, err
        facts.append(json.loads(out))
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert facts[0]["digest"] == facts[1]["digest"]
    assert facts[0]["transitions"] == 600


def test_the_command_of_the_pages(
    weed_bucket: WeedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As it is printed, in a folder with such a log; what it prints is what the next command names."""
    [words] = {tuple(words) for words in commands("unio4", mentioned=False) if "push" in words}
    place = tmp_path / words[3].removeprefix("transitions:")
    shutil.copytree(source_of("transitions", tmp_path, monkeypatch).removeprefix("transitions:"), place)
    monkeypatch.chdir(tmp_path)
    weed_bucket.client.create_bucket(Bucket=words[4].split("/")[2])
    assert call(capsys, *words[1:])[:2] == (0, f"{words[4]}\n")
    sources = {
        told[told.index("--dataset") + 1] for told in commands("unio4", mentioned=False) if "submit" in told
    }
    assert words[4] in sources


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_one_line(
    harm: str, weed_bucket: WeedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    target = f"s3://{weed_bucket.name}/log"
    assert call(capsys, "dataset", "push", source_of("transitions", tmp_path, monkeypatch), target)[0] == 0
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "another"))
    do, words = HARM[harm]
    do(weed_bucket.client, weed_bucket.name)
    code, out, err = call(capsys, "dataset", "inspect", target)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ") and words in line
