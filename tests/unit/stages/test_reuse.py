"""Nothing is computed twice, and nothing is reused that is not what would be computed."""

import io
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.numpy import save_file
from tiny_runs import call, files_under, saved_recording, set_arguments
from whole_runs import STAGE_NAMES, STAGES, find_stage, tiny_config

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import InputError
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.progress import Reporter
from unio4_lib.runs.folder import RunFolder
from unio4_lib.runs.inline import run
from unio4_lib.settings.model import StageConfig
from unio4_lib.stages.context import DamagedArtifact, StageContext
from unio4_lib.stages.repair import Stages
from unio4_lib.stages.runner import StageWork, run_stage

SECONDS_OF_A_REUSED_RUN = 5.0  # on a busy machine; most of it is importing
# Read to refuse a dataset early; they change no result of these stages.
CHECKED = {"behavior.holdout_fraction", "dynamics.holdout_fraction"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def computed(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A root with everything of one run, and the run's summary; nobody may change it."""
    root = tmp_path_factory.mktemp("computed")
    return root, run(tiny_config(dataset), root / "runs", artifact_root=root / "artifacts")


@pytest.fixture
def root(computed: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the artifacts for a test of its own; moving a root changes nothing."""
    return Path(shutil.copytree(computed[0] / "artifacts", tmp_path / "artifacts"))


def again(root: Path, config: UniO4Config, **options: Any) -> tuple[dict[str, Any], str]:
    """Summary and what was said."""
    said = io.StringIO()
    console = Console(file=said, width=200)
    return run(config, root.parent / "runs", console, artifact_root=root, **options), said.getvalue()


def computed_stages(summary: dict[str, Any]) -> set[str]:
    return {name for name, facts in summary["stages"].items() if not facts["reused"]}


def findings(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("scores", "gate", "online_curve", "policy_digest", "dataset")}


def test_the_same_again_computes_nothing(
    computed: tuple[Path, dict[str, Any]], root: Path, dataset: str
) -> None:
    began = time.monotonic()
    summary, said = again(root, tiny_config(dataset))
    assert time.monotonic() - began < SECONDS_OF_A_REUSED_RUN
    assert computed_stages(summary) == set()
    assert findings(summary) == findings(computed[1])
    assert [line.split(":")[0] for line in sorted(said.splitlines())] == sorted(
        [*STAGE_NAMES, "the run has nothing to compute"]
    )
    first, second = computed[0] / "runs" / "latest", root.parent / "runs" / "latest"
    assert files_under(first) == files_under(second)
    for name in ("metrics.json", "decisions.json", "policies/online/policy.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


FROM_IMPROVE = {"improve-policy", "finetune-online", "report"}


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"finetune__clip": 0.1}, {"finetune-online", "report"}),
        ({"evaluate__episodes": 3}, {"report"}),
        ({"checkpoint_seconds": 1.0}, set()),
        ({"improve__clip": 0.1}, FROM_IMPROVE),
        ({"critics__expectile": 0.6}, {"fit-critics", *FROM_IMPROVE}),
        ({"seed": 2}, set(STAGE_NAMES[1:])),
        ({"prepare__clip_actions": True}, set(STAGE_NAMES)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",  # sets have no order
)
def test_a_setting_computes_again_what_reads_it(
    changed: dict[str, Any], stages: set[str], root: Path, dataset: str
) -> None:
    assert computed_stages(again(root, tiny_config(dataset, **changed))[0]) == stages


def test_what_processes_left_that_were_killed_goes_with_the_next_run(root: Path, dataset: str) -> None:
    work = StageContext(root).work
    folders = [work / entry.name for entry in (root / "fingerprints").iterdir()]
    kept = [root / "checkpoints" / folder.name / "state-0.ckpt" for folder in folders]
    for path in [*kept, *(folder / name for folder in folders for name in ("state-0.ckpt", ".a.tmp"))]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"whole or half")
    assert computed_stages(again(root, tiny_config(dataset))[0]) == set()
    assert [folder for folder in folders if folder.exists()] == []
    assert [path for path in kept if path.exists()] == []


def test_reuse_can_be_switched_off(computed: tuple[Path, dict[str, Any]], root: Path, dataset: str) -> None:
    summary, _ = again(root, tiny_config(dataset), reuse=False)
    assert computed_stages(summary) == set(STAGE_NAMES)
    assert findings(summary) == findings(computed[1])
    digests = [
        {name: facts["artifact_digest"] for name, facts in one["stages"].items() if name != "report"}
        for one in (summary, computed[1])
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("kind", ["dataset", "critics", "online"])
def test_what_is_damaged_is_computed_again_and_named(kind: str, root: Path, dataset: str) -> None:
    summary, _ = again(root, tiny_config(dataset))
    stage = next(stage.name for stage in STAGES if stage.kind == kind)
    digest = summary["stages"][stage]["artifact_digest"]
    path = next(path for path in sorted((root / "artifacts" / digest).rglob("*.safetensors")))
    flip(path, random.Random(1))
    summary, said = again(root, tiny_config(dataset))
    assert computed_stages(summary) == {stage}
    assert summary["stages"][stage]["artifact_digest"] == digest
    (line,) = (line for line in said.splitlines() if "cannot be reused" in line)
    assert line.startswith(f"{stage}: ")
    assert path.name in line
    assert computed_stages(again(root, tiny_config(dataset))[0]) == set()


def flip(path: Path, source: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    path.write_bytes(data)


def test_a_missing_artifact_or_a_damaged_entry_is_computed_again(root: Path, dataset: str) -> None:
    summary, _ = again(root, tiny_config(dataset))
    shutil.rmtree(root / "artifacts" / summary["stages"]["fit-dynamics"]["artifact_digest"])
    entries = (root / "fingerprints").iterdir()
    entry = next(path for path in entries if b'"kind": "behavior"' in path.read_bytes())
    flip(entry, random.Random(2))
    summary, said = again(root, tiny_config(dataset))
    assert computed_stages(summary) == {"fit-dynamics", "clone-behavior"}
    assert entry.name in said


def test_a_dataset_that_changed_is_prepared_again(
    root: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, other = saved_recording(tmp_path / "a"), saved_recording(tmp_path / "b", steps=400)
    first, _ = again(root, tiny_config(rows))
    folder = Path(rows.removeprefix("transitions:"))
    shutil.rmtree(folder)
    # An empty machine: the source is not here, what was made of it is.
    assert computed_stages(again(root, tiny_config(rows))[0]) == set()
    Path(other.removeprefix("transitions:")).rename(folder)
    second, said = again(root, tiny_config(rows))
    assert computed_stages(second) == set(STAGE_NAMES)
    assert "the dataset has changed" in said
    assert (first["dataset"]["transitions"], second["dataset"]["transitions"]) == (600, 400)


class Recorder:
    """A configuration that remembers what was read of it."""

    def __init__(self, model: StageConfig, prefix: str, seen: set[str]) -> None:
        self.model, self.prefix, self.seen = model, prefix, seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.model, name)
        if isinstance(value, StageConfig):
            return Recorder(value, f"{self.prefix}{name}.", self.seen)
        if name in type(self.model).model_fields:
            self.seen.add(f"{self.prefix}{name}")
        elif self.prefix:  # a method looks at all fields
            self.seen.update(f"{self.prefix}{field}" for field in type(self.model).model_fields)
        return value


@pytest.mark.parametrize("critic", ["refit", "offline"])
def test_no_stage_reads_what_its_fingerprint_leaves_out(critic: str, dataset: str, tmp_path: Path) -> None:
    config = tiny_config(dataset, finetune__critic=critic)
    refs: dict[str, ArtifactRef] = {}
    with StageContext(tmp_path) as context:
        for stage in STAGES:
            seen: set[str] = set()
            recorder: Any = Recorder(config, "", seen)
            inputs = {kind: refs[kind] for kind in stage.inputs}
            refs[stage.kind] = run_stage(stage, recorder, inputs, context).ref
            known = set(stage.reads) | CHECKED | {"checkpoint_seconds"}
            unknown = {name for name in seen if not known & {name, name.split(".")[0]}}
            assert unknown == set(), stage.name


def stages_of(config: UniO4Config, context: StageContext) -> Stages:
    return Stages(find_method("unio4").steps, config, context)


def test_inputs_have_to_fit(dataset: str, root: Path) -> None:
    config, report = tiny_config(dataset), io.StringIO()
    with StageContext(root, reporter=Reporter(Console(file=report))) as context:
        ref = run_stage(find_stage("prepare-dataset"), config, {}, context).ref
        for name, inputs, words in (
            ("fit-critic", {}, "has no such stage; expected one of prepare-dataset"),
            ("fit-critics", {}, "no input dataset; expected the reference to an artifact of kind dataset"),
            ("fit-critics", {"dataset": ref, "online": ref}, "input online is not one of its inputs"),
            ("finetune-online", {"dataset": ref, "critics": ref, "offline": ref}, "of kind dataset"),
        ):
            with pytest.raises(InputError, match=words):
                run_stage(find_stage(name), config, inputs, context)
        flip(root / "artifacts" / ref.digest / "transitions" / "transitions.safetensors", random.Random(0))
    with StageContext(root, reuse=False) as context:
        with pytest.raises(DamagedArtifact, match=r"transitions\.safetensors: sha256"):
            context.hold(ref)
        stages_of(config, context).run(find_stage("fit-critics"), {"dataset": ref})
        context.hold(ref)


@pytest.fixture
def online_inputs(computed: tuple[Path, dict[str, Any]], root: Path) -> dict[str, ArtifactRef]:
    """What fine-tuning takes; a bit of the critics is wrong."""
    folder, found = computed[0] / "runs" / "latest" / "artifacts", {}
    for kind in ("dataset", "critics", "offline"):
        ref = ArtifactRef.load(folder / f"{kind}.json")
        found[kind] = ref.model_copy(update={"uri": f"{root}/artifacts/{ref.digest}"})
    flip(root / "artifacts" / found["critics"].digest / "critics.safetensors", random.Random(2))
    return found


def test_a_stage_has_a_damaged_input_made_again(
    dataset: str, root: Path, online_inputs: dict[str, ArtifactRef]
) -> None:
    """Whatever runs it: it knows references only, and finds by the index what those were made from."""
    said = io.StringIO()
    config = tiny_config(dataset, finetune__critic="offline")
    with StageContext(root, reuse=False, reporter=Reporter(Console(file=said, width=300))) as context:
        stages_of(config, context).run(find_stage("finetune-online"), online_inputs)
        assert "finetune-online: critics is damaged, is made again: " in said.getvalue()
        context.store.verify(online_inputs["critics"])


def test_what_cannot_be_made_again_here_is_removed_and_said(
    dataset: str, root: Path, online_inputs: dict[str, ArtifactRef]
) -> None:
    """A stage by hand may have other settings than the one before: it must not guess."""
    other = tiny_config(dataset, finetune__critic="offline", critics__steps=30)
    with StageContext(root, reuse=False) as context:
        with pytest.raises(InputError, match="fit-critics makes it anew when the run is started again"):
            stages_of(other, context).run(find_stage("finetune-online"), online_inputs)
        assert not context.store.exists(online_inputs["critics"].digest)


def test_the_command_runs_one_stage(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--dataset", dataset, *set_arguments(), "--artifact-root", str(tmp_path / "root"))
    first = ("stage", "prepare-dataset", *common, "--output", str(tmp_path / "d.json"))
    code, out, err = call(capsys, *first)
    assert (code, out.strip()) == (0, ArtifactRef.load(tmp_path / "d.json").uri)
    assert "dataset: 600 transitions" in err
    inputs = ("--input", f"dataset={tmp_path / 'd.json'}")
    code, out, _ = call(capsys, "stage", "fit-critics", *common, *inputs, "--json", "--quiet")
    assert (code, json.loads(out)["reused"], json.loads(out)["ref"]["kind"]) == (0, False, "critics")
    code, out, _ = call(capsys, "stage", "fit-critics", *common, *inputs, "--json", "--quiet")
    assert json.loads(out)["reused"] is True
    for more, words in (
        (("--input", "dataset"), "expected KIND=FILE"),
        (("--input", f"dataset={tmp_path / 'none.json'}"), "none.json: cannot be read"),
        ((), "no input dataset"),
    ):
        code, out, err = call(capsys, "stage", "fit-critics", *common, *more, "--quiet")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, dataset: str) -> None:
    config = tiny_config(dataset)
    folders = [RunFolder(tmp_path, config) for _ in range(3)]
    assert len({folder.run_id for folder in folders}) == 3
    # What a run says may name places and people: only its owner enters.
    assert {(tmp_path / folder.run_id).stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert all((tmp_path / folder.run_id / "config.yaml").exists() for folder in folders)


def test_what_was_being_deleted_when_it_was_published_is_not_remembered(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file goes before the manifest is made, the others afterwards: what is published lacks one."""
    stage, config = find_stage("prepare-dataset"), tiny_config(dataset)

    def in_between(store: Any, folder: Path, manifest: Any) -> ArtifactRef:
        ref = publish(store, folder, manifest)
        shutil.rmtree(folder)
        return ref

    with StageContext(tmp_path / "root", cache=tmp_path / "cache") as context:
        publish = type(context.store).publish
        with monkeypatch.context() as changed, pytest.raises(InputError, match="gone while prepare-dataset"):
            changed.setattr(type(context.store), "publish", in_between)
            run_stage(stage, config, {}, context)
        assert not run_stage(stage, config, {}, context).reused


@pytest.mark.parametrize("native", [False, True])
def test_a_cache_that_is_deleted_under_its_hands_is_one_line(
    native: bool, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = StageWork.finish

    def too_late(work: StageWork, *rest: Any) -> None:
        shutil.rmtree(tmp_path / "cache")
        if native:
            save_file({}, work.folder / "a.safetensors")
        finish(work, *rest)

    stage, config = find_stage("prepare-dataset"), tiny_config(dataset)
    with StageContext(tmp_path / "root", cache=tmp_path / "cache") as context:
        with monkeypatch.context() as changed, pytest.raises(InputError) as raised:
            changed.setattr(StageWork, "finish", too_late)
            run_stage(stage, config, {}, context)
        assert "gone while prepare-dataset was at work; start it again" in str(raised.value)
        assert not run_stage(stage, config, {}, context).reused
