"""Policies of several methods before one judge: who takes part, what is judged, and what goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import SETTINGS, call, saved_recording
from whole_runs import AskedToEnd, inputs_of

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import InputError, Preempted
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.tournament.entrants import entrants_of
from unio4_lib.methods.tournament.settings import TournamentConfig
from unio4_lib.methods.tournament.steps import usual_log_std
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.kinds import as_gaussian, build_policy
from unio4_lib.nets.policy import GaussianPolicy, Kind, PolicySpec
from unio4_lib.settings.model import PrepareConfig, RunConfig
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.fingerprint import fingerprint
from unio4_lib.stages.runner import run_stage

METHOD = find_method("tournament")
STEP = METHOD.step
TRAIN = {"train.steps": 40, "train.batch_size": 32, "train.evaluate_every": 20}
Capture = pytest.CaptureFixture[str]


def overrides(**changed: Any) -> list[str]:
    values = SETTINGS | TRAIN | {"entrants": ["td3_bc", "iql:temperature=10"], "improve.members": 8}
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def settings(dataset: str = "minari:x/y-v0", **changed: Any) -> TournamentConfig:
    found = load_config(dataset=dataset, method="tournament", overrides=overrides(**changed))
    assert isinstance(found, TournamentConfig)
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


def test_a_run(dataset: str, tmp_path: Path, capsys: Capture) -> None:
    sets = [part for text in overrides() for part in ("--set", text)]
    told = ["--method", "tournament", "--dataset", dataset, "--output", str(tmp_path), "--tracking", "none"]
    code, out, err = call(capsys, "run", "--json", "--quiet", "--runner", "inline", *told, *sets)
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert list(summary["stages"]) == [step.name for step in METHOD.steps]
    names = [member["name"] for member in summary["gate"]["portfolio"]]
    assert names[-2:] == ["td3_bc", "iql:temperature=10"]
    assert len(names) == 2 + 2 + 2  # clones, extracted, entrants
    folder = tmp_path / summary["run_id"]
    page = (folder / "report.html").read_text()
    assert (
        "Before improvement the judge put a policy of kind" in page and page.count("iql:temperature=10") > 1
    )
    assert load_policy(folder / "policies" / "online", GaussianPolicy)


def made_by(config: RunConfig, root: Path) -> dict[str, ArtifactRef]:
    refs: dict[str, ArtifactRef] = {}
    with StageContext(root) as context:
        for step in METHOD.steps[:-2]:
            refs[step.kind] = run_stage(step, config, inputs_of(step.inputs, refs), context).ref
    return refs


def test_entrants_are_those_of_their_own_runs(dataset: str, tmp_path: Path) -> None:
    """The same settings give the same artifact, whoever asks first; the judged policy acts as it does."""
    config = settings(dataset)
    entrant = entrants_of(config.entrants, config)[1]
    own = [f"{key}={json.dumps(value)}" for key, value in (TRAIN | {"device": "cpu", "seed": 1}).items()]
    own += ["iql.hidden=[16, 16]", "iql.temperature=10"]
    alone = load_config(dataset=dataset, method="iql", overrides=own)
    assert (entrant.label, entrant.config) == ("iql:temperature=10", alone)
    with StageContext(tmp_path) as context:
        rows = run_stage(STEP("prepare-dataset"), config, {}, context).ref
        first = run_stage(find_method("iql").step("train-offline"), alone, {"dataset": rows}, context)
    refs = made_by(config, tmp_path)
    with StageContext(tmp_path) as context:
        facts = json.loads((context.hold(refs["entrants"]) / "facts.json").read_bytes())["entrants"]
        assert facts[1]["artifact_digest"] == first.ref.digest
        judged, _ = load_policy(context.hold(refs["offline"]) / "portfolio", GaussianPolicy)
        trained, _ = load_policy(context.hold(first.ref) / "policy")
    observations = load_transitions(dataset).observations[:50]
    assert abs(judged.act(observations, member=5) - trained.act(observations)).max() < 1e-5


def test_training_goes_on_with_the_same_bits(dataset: str, tmp_path: Path) -> None:
    config = settings(dataset, checkpoint_seconds=0)
    with StageContext(tmp_path / "whole") as context:
        given = {"dataset": run_stage(STEP("prepare-dataset"), config, {}, context).ref}
        whole = run_stage(STEP("train-entrants"), config, given, context).ref
    for attempt in range(2):  # in the first entrant, and in the second
        context = StageContext(
            tmp_path / "root", cache=tmp_path / f"disk-{attempt}", preemption=AskedToEnd(30)
        )
        with context, pytest.raises(Preempted):
            run_stage(STEP("train-entrants"), config, given, context)
    with StageContext(tmp_path / "root", cache=tmp_path / "last") as context:
        ref = run_stage(STEP("train-entrants"), config, given, context).ref
    assert ref.digest == whole.digest


def test_a_fingerprint_knows_the_code_of_the_entrants(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that take part, and of no other."""
    from unio4_lib.stages import fingerprint as module

    def keys() -> list[str]:
        told = (settings(entrants=["iql"]), settings(entrants=["td3_bc"]))
        return [fingerprint(STEP("train-entrants"), config, {}) for config in told]

    before, real = keys(), module.code_version
    changed = lambda name: real(name) + ("x" if name.endswith("methods.iql") else "")  # noqa: E731
    monkeypatch.setattr(module, "code_version", changed)
    after = keys()
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize("kind", ["gaussian", "deterministic", "squashed"])
@pytest.mark.parametrize("std", ["state", "shared"])
def test_other_kinds_become_gaussian(kind: Kind, std: Any) -> None:
    own = PolicySpec(2, 3, 2, (8,), std="shared" if kind == "gaussian" else "state", std_scale=0.3, kind=kind)
    policy = build_policy(own, generator=torch.Generator().manual_seed(0))
    policy.set_scales(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3) * 2, -torch.ones(2) * 3, torch.ones(2))
    log_std = torch.tensor([-1.0, -2.5])
    gaussian = as_gaussian(policy, PolicySpec(7, 3, 2, (8,), std=std, std_scale=0.5), log_std)
    observations = torch.randn(20, 3)
    found, wanted = gaussian.distribution(observations), policy.distribution(observations)
    assert torch.allclose(found.mean, wanted.mean, atol=1e-6)
    assert torch.allclose(found.log_std, log_std.expand_as(found.log_std), atol=1e-5)
    assert torch.equal(gaussian.action_low, policy.action_low)
    with pytest.raises(InputError, match=r"widths \[8\] with relu; expected \[9\] with relu"):
        as_gaussian(policy, PolicySpec(1, 3, 2, (9,)), log_std)


def test_entrants_are_as_wide_as_the_clones(dataset: str) -> None:
    rows = load_transitions(dataset)
    data = OfflineData.build(rows, PrepareConfig(), discount=0.99, device=torch.device("cpu"))
    clones = GaussianPolicy(PolicySpec(3, data.observation_dim, data.action_dim, (8,)))
    every = clones.distribution(data.observations).log_std.mean(dim=(0, 1))
    assert torch.allclose(usual_log_std(clones, data), every, atol=1e-6)


@pytest.mark.parametrize(
    ("entrants", "line"),
    [
        (["unio4"], "entrants has unio4; expected names of iql, td3, td3_bc"),
        (["pex"], "entrants has pex; expected names of iql"),
        (["tournament"], "entrants has tournament; expected names of"),
        (["iql", "iql"], "entrants has iql twice"),
        (["iql:foo=1"], "entrants has iql:foo=1: --set iql.foo=1: unknown key iql.foo; did you mean iql."),
        (["iql:expectile=2"], "iql.expectile is 2; expected a number"),
        (["iql:hidden=[8,8]"], "widths [8, 8] with relu; expected those of the clones, [16, 16] with relu"),
        ([], "entrants is []"),
    ],
)
def test_who_cannot_enter_is_one_line(entrants: list[str], line: str) -> None:
    with pytest.raises(InputError) as found:
        settings(entrants=entrants)
    assert line in str(found.value) and "\n" not in str(found.value)
