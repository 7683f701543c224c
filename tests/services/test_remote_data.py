"""Datasets in a real S3 server: pushed, read by stages, killed half way, changed, laid there by hand."""

import shutil
from pathlib import Path

import pytest
from tiny_runs import call, run_arguments, saved_recording

from unio4_lib.artifacts.cache import Cache
from unio4_lib.artifacts.s3_transfer import Bucket
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.sources.remote import POINTER, local_source, push
from unio4_lib.sources.state import source_digest

pytest.importorskip("boto3", reason='no boto3: pip install "unio4[s3]"')
pytestmark = pytest.mark.services

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    return tmp_path


def read(source: str, machine: Path) -> Transitions:
    with local_source(source, Cache(machine / "read")) as local:
        return load_transitions(local)


def test_a_pushed_log_is_a_source_of_a_run(
    bucket: Path, dataset: str, machine: Path, capsys: Capture
) -> None:
    target = f"s3://{bucket.name}/logs/mine"
    code, out, err = call(capsys, "dataset", "push", dataset, target)
    assert (code, out.strip()) == (0, target), err
    assert read(target, machine).digest() == load_transitions(dataset).digest()
    code, out, _ = call(capsys, "dataset", "inspect", target, "--json")
    assert code == 0 and '"episodes"' in out
    code, _, err = call(capsys, *run_arguments(target, machine / "runs"), "--quiet", "--finetune", "never")
    assert code == 0, err
    assert not list((machine / "cache" / "push").glob("tmp*"))  # nothing is left behind


def test_a_push_that_breaks_leaves_what_was_there_and_goes_on(
    bucket: Path, dataset: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = f"s3://{bucket.name}/log", saved_recording(machine / "other", 900)
    push(dataset, target, machine / "push")
    before = source_digest(target)
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # files are there, the manifest is not
            push(other, target, machine / "push")
    assert source_digest(target) == before
    assert read(target, machine).digest() == load_transitions(dataset).digest()
    sent: list[str] = []
    upload = Bucket._upload

    def watched(self: Bucket, path: Path, key: str, entry: object, config: object) -> None:
        if not self._stands(key, entry):  # type: ignore[arg-type]
            sent.append(key)
        upload(self, path, key, entry, config)  # type: ignore[arg-type]

    monkeypatch.setattr(Bucket, "_upload", watched)
    push(other, target, machine / "push")
    assert sent == []  # what arrived before the break is not sent again
    assert source_digest(target) != before
    assert read(target, machine).digest() == load_transitions(other).digest()


def test_a_damaged_log_is_refused(bucket: Path, dataset: str, machine: Path) -> None:
    target = f"s3://{bucket.name}/log"
    push(dataset, target, machine / "push")
    path = next((bucket / "log").rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="safetensors"):
        read(target, machine)
    (bucket / "log" / POINTER).write_text("{")
    with pytest.raises(InputError, match=f"{POINTER}: .* not whole"):
        read(target, machine)


def test_a_folder_that_was_laid_there_by_hand(bucket: Path, dataset: str, machine: Path) -> None:
    shutil.copytree(dataset.removeprefix("transitions:"), bucket / "by" / "hand")
    source = f"s3://{bucket.name}/by/hand"
    before = source_digest(source)
    assert read(source, machine).digest() == load_transitions(dataset).digest()
    assert read(f"{source}?clip_actions=true", machine).num_transitions > 0
    (bucket / "by" / "hand" / "note.txt").write_text("x")
    assert source_digest(source) != before
    assert not list((machine / "read").glob("tmp*"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing", "nothing is there; expected a D4RL file, a folder of transitions"),
        ("odd", "a.txt is no D4RL file and no folder of transitions; push other data"),
    ],
)
def test_what_is_no_dataset_is_named(bucket: Path, machine: Path, place: str, message: str) -> None:
    (bucket / "odd").mkdir()
    (bucket / "odd" / "a.txt").write_text("x")
    with pytest.raises(InputError, match=message):
        read(f"s3://{bucket.name}/{place}", machine)


@pytest.mark.parametrize("target", ["data/log", "s3://bucket", "transitions:x", "s3://b/p?env=Hopper-v5"])
def test_a_push_needs_a_place(target: str, dataset: str, machine: Path, capsys: Capture) -> None:
    code, _, err = call(capsys, "dataset", "push", dataset, target)
    assert (code == 2 and len(err.splitlines()) == 1 and "expected" in err) or "a source is one of" in err
