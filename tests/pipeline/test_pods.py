"""What a Kubernetes API server would say to the pods of the compiled pipelines."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kfp_pods import Refused, driver_patch, pods
from kubernetes_rules import quantity, violations
from quick_yaml import documents

from pipelines.compile import COMPILED, PIPELINES, compile_all
from pipelines.settings import PipelineSettings, Resources
from unio4_lib.cli.component import resolve_run

GPU = {"accelerator": "nvidia.com/gpu", "accelerators": "2", "node_selector": {"pool": "gpu"}}
GPU |= {"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], "cpu_limit": "16"}


def refused(made: list[dict[str, Any]]) -> list[str]:
    return [line for pod in made for line in violations(pod)]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_pod_of_the_released_pipelines_is_accepted(kubectl: Path, name: str) -> None:
    made = pods(COMPILED / f"{name}.yaml", kubectl)
    assert made
    assert refused(made) == []


def test_no_variable_has_two_sources() -> None:
    """Argo joins what has one name, and Kubernetes refuses the result."""
    for path in COMPILED.glob("*.yaml"):
        spec, platform = documents(path.read_text())
        extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for name, extra in extras.items():
            main = driver_patch(spec["deploymentSpec"]["executors"][name]["container"], extra, WHATEVER)
            variables = [entry["name"] for entry in main["containers"][0]["env"]]
            assert len(variables) == len(set(variables)), f"{path.name} {name}: {variables}"


class Anything(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return ""


WHATEVER = Anything()


def test_a_run_asks_for_what_it_was_told(kubectl: Path) -> None:
    made = pods(COMPILED / "unio4.yaml", kubectl, GPU)
    assert refused(made) == []
    limits = [main(pod)["resources"]["limits"] for pod in made]
    with_gpu = [one for one in limits if one.get("nvidia.com/gpu") == "2"]
    assert len(with_gpu) == 5  # those that train
    assert sum(one["cpu"] == "16" for one in limits) == 8  # those and prepare-dataset, report and report
    assert sum(pod["spec"].get("nodeSelector") == {"pool": "gpu"} for pod in made) == 8
    assert sum("tolerations" in pod["spec"] for pod in made) == 8


def test_a_run_that_asks_for_nothing_gets_no_accelerator_and_fits_two_cores(kubectl: Path) -> None:
    made = pods(COMPILED / "unio4.yaml", kubectl)
    asked = [main(pod)["resources"] for pod in made]
    assert all(set(one["limits"]) == {"cpu", "memory"} for one in asked)
    # Three stages side by side, on a node that has given a core to others.
    requests = sorted((quantity(one["requests"]["cpu"]) or 0 for one in asked), reverse=True)
    assert sum(requests[:3]) <= 1.5
    assert all(not pod["spec"].get("tolerations") for pod in made)


def main(pod: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in pod["spec"]["containers"] if one["name"] == "main")


def test_settings_of_all_kinds_make_pods_that_are_accepted(tmp_path: Path, kubectl: Path) -> None:
    settings = PipelineSettings(
        needs=Resources(scratch_class="fast", cpu_limit="8"),
        stages={"finetune-online": Resources(accelerator="amd.com/gpu", node_selector={"pool": "x"})},
        environment_keys=("AWS_REGION", "HTTPS_PROXY"),
        ca_bundle="company-ca",
        claims={"logs": "/data/logs"},
    )
    compile_all(settings, tmp_path)
    for name in PIPELINES:
        made = pods(tmp_path / f"{name}.yaml", kubectl)
        assert refused(made) == []
    [prepared] = [
        pod for pod in pods(tmp_path / "unio4.yaml", kubectl) if "logs" in str(pod["spec"]["volumes"])
    ]
    assert {"name": "logs", "mountPath": "/data/logs"} in main(prepared)["volumeMounts"]
    trusted = {entry["name"]: entry.get("value") for entry in main(prepared)["env"]}
    assert trusted["AWS_CA_BUNDLE"] == trusted["SSL_CERT_FILE"] == "/etc/unio4/ca/ca.crt"


def test_what_kfps_plug_in_for_mlflow_adds_meets_no_name_of_ours() -> None:
    """Joined with ours, a plain value would make a pod that is refused, and a reference would be lost."""
    added = {"MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE"}
    added |= {f"MLFLOW_TRACKING_{name}" for name in ("AUTH", "TOKEN", "USERNAME", "PASSWORD")}
    spec, platform = documents((COMPILED / "unio4.yaml").read_text())
    extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in spec["deploymentSpec"]["executors"].items():
        patch = driver_patch(executor["container"], extras[name], WHATEVER)
        assert not added & {entry["name"] for entry in patch["containers"][0]["env"]}


def test_what_would_be_refused_is_found(tmp_path: Path, kubectl: Path) -> None:
    """The defect of release 0.1.0: S3's place from a secret and from a ConfigMap."""
    broken = tmp_path / "unio4.yaml"
    shutil.copyfile(COMPILED / "leaderboard.yaml", broken)
    text = broken.read_text().replace("envVar: AWS_SESSION_TOKEN", "envVar: AWS_REGION")
    broken.write_text(text)
    assert any("may not have more than one field" in line for line in refused(pods(broken, kubectl)))


def test_an_empty_claim_ends_the_driver() -> None:
    """Why claims are no parameter: KFP 2.17 takes neither null nor an empty text for none."""
    extra = {"pvcMount": [{"mountPath": "/data", "pvcNameParameter": {"componentInputParameter": "claim"}}]}
    with pytest.raises(Refused):
        driver_patch({"image": "a", "command": []}, extra, {"claim": ""})


def test_a_run_fits_into_the_one_object_that_argo_keeps_of_it() -> None:
    """Reckoned from above: Argo refuses more than a megabyte of node states, and counts it compressed.

    Of each task Argo has the driver's outputs and the executor's inputs: the pod's patch, in which KFP also
    writes the component and the values of its parameters. The settings of the run are one of them.
    """
    told = {"tracking": "http://mlflow:5000", "experiment": "unio4", "run_name": "r" * 60, "sweep": ""}
    settings = resolve_run("minari:a", "unio4", "paper", 0, [], artifact_root="s3://b/p", reuse=True, **told)
    spec, platform = documents((COMPILED / "unio4.yaml").read_text())
    extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    given = {name: one.get("defaultValue", "") for name, one in parameters_of(spec).items()}
    tasks = 0
    for name, executor in spec["deploymentSpec"]["executors"].items():
        component = spec["components"][name.replace("exec-", "comp-", 1)]
        patch = driver_patch(executor["container"], extras[name], given)
        tasks += 2 * (len(json.dumps(patch)) + len(json.dumps(component)) + len(settings))
    described = 2 * len(json.dumps([spec, platform]))  # as a template, and as arguments of the root
    assert tasks + described < 400_000, (tasks, described)
    assert (COMPILED / "unio4.yaml").stat().st_size < 100_000


def parameters_of(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["root"]["inputDefinitions"]["parameters"]
    return found
