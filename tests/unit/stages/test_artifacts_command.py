"""``unio4 artifacts``: what is there, whether it is whole, and what may go."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import call, saved_recording
from whole_runs import STAGES, AskedToEnd, all_artifacts, find_stage, tiny_config

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import Preempted
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.report.facts import SCHEMA
from unio4_lib.runs.inline import run
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.runner import run_stage

Capture = pytest.CaptureFixture[str]
OLD = time.time() - 40 * 24 * 3600


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> UniO4Config:
    return tiny_config(saved_recording(tmp_path_factory.mktemp("recorded")))


@pytest.fixture(scope="module")
def made(
    config: UniO4Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, ArtifactRef]]:
    root = tmp_path_factory.mktemp("made")
    return root, all_artifacts(config, root)


@pytest.fixture
def root(made: tuple[Path, dict[str, ArtifactRef]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "root"))


def artifacts(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    return call(capsys, "artifacts", *arguments)


def test_list_and_show(root: Path, made: tuple[Path, dict[str, ArtifactRef]], capsys: Capture) -> None:
    code, out, _ = artifacts(capsys, "list", "--artifact-root", str(root), "--json")
    listed = json.loads(out)
    assert code == 0
    assert {entry["kind"] for entry in listed} == {stage.kind for stage in STAGES}
    code, out, _ = artifacts(capsys, "list", "--artifact-root", str(root))
    assert all(entry["digest"][:16] in out for entry in listed)
    ref = made[1]["offline"]
    code, out, _ = artifacts(capsys, "show", ref.digest[:10], "--artifact-root", str(root))
    shown = json.loads(out)
    assert set(shown["inputs"]) == {"dataset", "behavior", "critics", "dynamics"}
    assert {"decisions.json", "log.json", "facts.json", "policy/policy.safetensors"} < set(shown["files"])
    code, _, err = artifacts(capsys, "show", "zzz", "--artifact-root", str(root))
    assert (code, err.count("\n")) == (2, 1)
    code, out, _ = artifacts(capsys, "list", "--artifact-root", str(root / "empty"))
    assert (code, "No artifact" in out) == (0, True)


def test_every_artifact_has_what_the_report_needs(made: tuple[Path, dict[str, ArtifactRef]]) -> None:
    root, refs = made
    for kind, ref in refs.items():
        folder = root / "artifacts" / ref.digest
        log = json.loads((folder / "log.json").read_bytes())
        assert all(set(entry) == {"step", "values"} for entry in log["entries"])
        assert (log["entries"] == []) == (kind in ("dataset", "report"))
        facts = json.loads((folder / "facts.json").read_bytes())
        assert log["schema_version"] == facts["schema_version"] == SCHEMA
    curve = json.loads((root / "artifacts" / refs["online"].digest / "curve.json").read_bytes())
    assert curve[0][0] == 0 and all(len(point) == 3 for point in curve)


def test_verify_names_what_is_damaged_and_removes_it_when_asked(
    root: Path, made: tuple[Path, dict[str, ArtifactRef]], capsys: Capture
) -> None:
    where = ("--artifact-root", str(root))
    code, out, _ = artifacts(capsys, "verify", *where)
    assert (code, out.splitlines()[-1]) == (0, "7 of 7 artifacts are whole")
    path = root / "artifacts" / made[1]["online"].digest / "curve.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    code, out, _ = artifacts(capsys, "verify", *where, "--remove")
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("damaged"))
    assert "curve.json" in line
    code, out, _ = artifacts(capsys, "verify", *where)
    assert (code, out.splitlines()[-1]) == (0, "6 of 6 artifacts are whole")


def age(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (OLD, OLD))


def test_a_collection_keeps_what_is_in_use(
    config: UniO4Config, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    where = ("--artifact-root", str(root), "--runs", str(runs), "--cache", str(cache))
    with StageContext(root) as context:
        refs = {"dataset": run_stage(find_stage("prepare-dataset"), config, {}, context).ref}
    killed = StageContext(root, cache=cache, reuse=False, preemption=AskedToEnd(3))
    with pytest.raises(Preempted), killed:
        run_stage(find_stage("fit-critics"), config, refs, killed)
    age(root)
    age(cache)
    before = contents(root)
    code, out, _ = artifacts(capsys, "gc", *where)
    assert (code, contents(root)) == (0, before)  # a dry run touches nothing
    assert out.splitlines()[-1].startswith("0 artifacts stay; 7 and ")
    run(config, runs, artifact_root=root, cache=cache)  # in use again
    age(root / "artifacts")
    code, out, _ = artifacts(capsys, "gc", *where, "--remove")
    assert code == 0
    assert out.splitlines()[-1].startswith("7 artifacts stay; 0 and ")
    assert not list((root / "checkpoints").rglob("*.ckpt"))
    age(root)
    code, out, _ = artifacts(capsys, "gc", *where, "--remove")  # nothing but the run's folder leads to them
    assert out.splitlines()[-1].startswith("7 artifacts stay; 0 and ")
    shutil.rmtree(runs)
    code, out, _ = artifacts(capsys, "gc", *where, "--remove")
    assert out.splitlines()[-1].startswith("0 artifacts stay; 7 and ")
    assert not list((root / "artifacts").iterdir())
    assert not list((root / "fingerprints").iterdir())


def contents(root: Path) -> dict[str, Any]:
    return {str(path): path.stat().st_mtime for path in root.rglob("*")}


def break_by_text(path: Path) -> None:
    path.write_text("{")


def break_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def break_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [break_by_text, break_by_pipe, break_by_folder])
def test_one_damaged_manifest_is_one_damaged_artifact(
    damage: Callable[[Path], None],
    root: Path,
    made: tuple[Path, dict[str, ArtifactRef]],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    digest, where = made[1]["critics"].digest, ("--artifact-root", str(root))
    damage(root / "artifacts" / digest / "manifest.json")
    code, out, _ = artifacts(capsys, "list", *where, "--json")
    listed = json.loads(out)
    assert (code, len(listed)) == (0, 7)
    assert [entry["digest"] for entry in listed if "manifest.json" in entry.get("damaged", "")] == [digest]
    for command in (("list",), ("gc", "--cache", str(tmp_path / "cache")), ("verify",)):
        code, out, _ = artifacts(capsys, *command, *where)
        assert code == int(command == ("verify",))
        assert f"damaged  {digest[:16]} ?: " in out, command
    code, _, err = artifacts(capsys, "show", digest[:16], *where)
    assert (code, err.count("\n"), "manifest.json" in err) == (2, 1, True)
    code, out, _ = artifacts(capsys, "show", made[1]["online"].digest[:16], *where)
    assert code == 0
    code, out, _ = artifacts(capsys, "verify", digest, *where, "--remove")
    assert (code, out.splitlines()[-1]) == (1, "0 of 1 artifacts are whole")
    code, out, _ = artifacts(capsys, "verify", *where)
    assert (code, out.splitlines()[-1]) == (0, "6 of 6 artifacts are whole")


def test_a_root_that_is_not_there_is_not_whole(tmp_path: Path, capsys: Capture) -> None:
    code, out, err = artifacts(capsys, "verify", "--artifact-root", str(tmp_path / "none"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no such folder; expected an artifact root" in err


@pytest.mark.parametrize("change", [{"bytes": 3}, {"kind": "behavior"}, {"producer": "report"}])
def test_a_reference_that_says_something_else_is_refused(
    change: dict[str, Any],
    root: Path,
    made: tuple[Path, dict[str, ArtifactRef]],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    ref = made[1]["online"]
    wrong = ref.model_copy(update={"uri": f"{root}/artifacts/{ref.digest}", **change})
    wrong.save(tmp_path / "ref.json")
    for command in (
        ("evaluate", str(tmp_path / "ref.json"), "--episodes", "2"),
        ("stage", "report", "--artifact-root", str(root), "--dataset", "minari:x/y-v0", "--tracking", "none",
         "--input", f"online={tmp_path / 'ref.json'}"),
    ):  # fmt: skip
        code, out, err = call(capsys, *command)
        assert (code, out, err.count("\n")) == (2, "", 1), command
        assert f"the reference says {next(iter(change.values()))!r}" in err
