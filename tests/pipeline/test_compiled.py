"""The committed pipelines are what the sources say, and KFP and we read them alike."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler
from kfp import components as kfp_components
from quick_yaml import documents

import components
from pipelines.compile import COMPILED, PIPELINES, compile_all
from pipelines.readme import COMPONENTS, readme
from pipelines.settings import STAGES, PipelineSettings
from unio4_lib.errors import InputError
from unio4_lib.runs.spec import PipelineSpec, compiled, holds

FOLDER = Path(components.__file__).parent


@pytest.fixture(scope="module")
def recompiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(PipelineSettings(), folder)
    return folder


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_committed_pipelines_are_up_to_date(recompiled: Path, name: str) -> None:
    made = (recompiled / f"{name}.yaml").read_text()
    assert (COMPILED / f"{name}.yaml").read_text() == made, "make pipelines"


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_kfp_loads_them(name: str) -> None:
    loaded = kfp_components.load_component_from_file(str(compiled(name)))
    assert set(loaded.pipeline_spec.root.input_definitions.parameters) == set(
        PipelineSpec.load(compiled(name)).root["inputDefinitions"]["parameters"]
    )


def test_every_condition_is_understood() -> None:
    conditions = re.findall(r"condition: (.*(?:\n {10,}.*)?)", (COMPILED / "unio4.yaml").read_text())
    spec = PipelineSpec.load(compiled("unio4"))
    found = [
        task["triggerPolicy"]["condition"]
        for component in spec.components.values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if task.get("triggerPolicy", {}).get("condition")
    ]
    assert len(found) == len(conditions) == 2
    name = "pipelinechannel--decide-finetuning-Output"
    assert [holds(text, {name: "finetune"}) for text in found] == [True, False]
    assert [holds(text, {name: "report"}) for text in found] == [False, True]


def platform(name: str) -> dict[str, Any]:
    _, kubernetes = documents((COMPILED / f"{name}.yaml").read_text())
    executors: dict[str, Any] = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_task_runs_as_an_ordinary_user_with_limits_and_secrets_by_name(name: str) -> None:
    spec, kubernetes = PipelineSpec.load(compiled(name)), platform(name)
    assert set(spec.executors) == set(kubernetes)
    for executor, placed in kubernetes.items():
        resources = spec.executors[executor]["container"]["resources"]
        assert {"resourceCpuLimit", "resourceMemoryLimit"} <= set(resources), executor
        assert placed["securityContext"]["runAsNonRoot"] is True
        assert [secret["secretName"] for secret in placed["secretAsEnv"]] == ["unio4-s3", "unio4-mlflow"]
        assert all(secret["optional"] for secret in placed["secretAsEnv"])
    assert "SECRET_ACCESS_KEY=" not in (COMPILED / f"{name}.yaml").read_text()


def test_settings_reach_the_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "registry: example.org/team\ntag: v9\nstages:\n  finetune-online:\n    accelerator: nvidia.com/gpu\n"
        "    node_selector: {pool: gpu}\n    tolerations: [{key: gpu, operator: Exists}]\n    retries: 7\n"
    )
    compiled_to = tmp_path / "unio4.yaml"
    compiler.Compiler().compile(PIPELINES["unio4"](PipelineSettings.load(path)), str(compiled_to))
    spec, kubernetes = documents(compiled_to.read_text())
    container = spec["deploymentSpec"]["executors"]["exec-finetune-online"]["container"]
    placed = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-finetune-online"]
    assert container["image"] == "example.org/team/finetune-online:v9"
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert placed["nodeSelector"]["nodeSelectorJson"]["runtimeValue"]["constant"] == {"pool": "gpu"}
    assert placed["tolerations"][0]["key"] == "gpu"


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("regstry: example.org\n")
    with pytest.raises(InputError, match="regstry"):
        PipelineSettings.load(path)


def test_every_component_has_resources_and_a_folder() -> None:
    assert {name.replace("_", "-") for name in COMPONENTS} == set(STAGES)
    assert {path.parent.name for path in FOLDER.glob("*/component.py")} == set(COMPONENTS)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_readme_says_what_the_component_takes(name: str) -> None:
    assert (FOLDER / name / "README.md").read_text() == readme(name), "make pipelines"


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_every_parameter_is_explained(name: str) -> None:
    function = COMPONENTS[name].python_func
    explained = re.findall(r"^ {8}(\w+): \S", inspect.getdoc(function) or "", flags=re.MULTILINE)
    explained += re.findall(r"^ {4}(\w+): \S", inspect.getdoc(function) or "", flags=re.MULTILINE)
    assert set(inspect.signature(function).parameters) <= set(explained), name


def test_pipeline_parameters_are_those_that_preparing_takes() -> None:
    """What a user sets on a run arrives at the stage that resolves the settings, under the same name."""
    pipeline = set(PipelineSpec.load(compiled("unio4")).root["inputDefinitions"]["parameters"])
    prepare = set(inspect.signature(COMPONENTS["prepare_dataset"].python_func).parameters)
    needs = {"node_selector", "tolerations", "accelerator", "accelerators"}
    needs |= {f"{resource}_{bound}" for resource in ("cpu", "memory") for bound in ("request", "limit")}
    assert pipeline - prepare == {"finetune", "prepare_image", *needs}
    assert prepare - pipeline == {"source", "metrics"}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_graph_is_given_what_its_tasks_take(name: str) -> None:
    """KFP's compiler does not see to it, and its driver ends where something is missing."""
    spec = PipelineSpec.load(compiled(name))
    graphs = [(spec.root["dag"], set(spec.root["inputDefinitions"]["parameters"]))]
    for dag, known in graphs:
        for task_name, task in dag["tasks"].items():
            given = task.get("inputs", {}).get("parameters", {})
            taken = {one.get("componentInputParameter") for one in given.values()} - {None}
            assert taken <= known, task_name
            component = spec.components[task["componentRef"]["name"]]
            if "dag" in component:
                declared = set(component.get("inputDefinitions", {}).get("parameters", {}))
                items = {task["parameterIterator"]["itemInput"]} if "parameterIterator" in task else set()
                assert declared - items <= set(given), task_name
                graphs.append((component["dag"], declared))


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_kfp_skips_nothing(name: str) -> None:
    """Its cache knows parameters only: a changed dataset would go unnoticed, MLflow would hear nothing."""
    assert "enableCache: true" not in compiled(name).read_text()
