"""The compiled pipelines as the chart changes them for one release."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chart_values import GOOD, Values
from kfp_pods import pods
from kubernetes_rules import violations
from quick_yaml import documents
from rendered_chart import Manifest, find, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
SURROUNDINGS = GOOD["surroundings of the pipeline"]
SURROUNDED = (
    "defaults",
    "laptop",
    "team-aws",
    "air-gapped",
    "surroundings of the pipeline",
    "authentication",
)
WITH_KFP = [name for name, values in GOOD.items() if values.get("kfp", {}).get("enabled", True)]


def pipelines(manifests: list[Manifest]) -> dict[str, tuple[Any, Any]]:
    """Both documents of each pipeline, by the name of its file."""
    [found] = [
        one
        for one in manifests
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-pipelines")
    ]
    return {name: tuple(documents(text)) for name, text in found["data"].items()}  # type: ignore[misc]


def tasks(values: Values) -> Iterator[dict[str, Any]]:
    """What every task of every pipeline asks of Kubernetes."""
    for _, kubernetes in pipelines(render(values)).values():
        yield from kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()


def variables(task: dict[str, Any]) -> list[str]:
    sources = [*task.get("secretAsEnv", []), *task.get("configMapAsEnv", [])]
    names = [one["envVar"] for source in sources for one in source["keyToEnv"]]
    return names + [one["name"] for one in task.get("fieldPathAsEnv", [])]


@pytest.mark.parametrize("name", WITH_KFP)
def test_no_variable_has_two_sources(name: str) -> None:
    """Argo joins entries of one name, and Kubernetes refuses the pod."""
    for task in tasks(GOOD[name]):
        assert len(variables(task)) == len(set(variables(task)))


def test_a_setting_wins_over_a_secret_of_its_name() -> None:
    for task in tasks({"pipeline": {"environment": {"AWS_SESSION_TOKEN": "x"}}}):
        assert variables(task).count("AWS_SESSION_TOKEN") == 1


@pytest.mark.parametrize("name", WITH_KFP)
def test_pods_get_every_setting_of_the_release(name: str) -> None:
    manifests = render(GOOD[name])
    settings = find(manifests, "ConfigMap", "unio4-environment")["data"]
    for task in tasks(GOOD[name]):
        [source] = [one for one in task["configMapAsEnv"] if one["configMapName"] == "unio4-environment"]
        assert {one["configMapKey"] for one in source["keyToEnv"]} == set(settings)
    assert "AWS_REGION" in settings
    assert settings.items() >= GOOD[name].get("pipeline", {}).get("environment", {}).items()


def test_own_certificates_reach_the_pods() -> None:
    settings = find(render(SURROUNDINGS), "ConfigMap", "unio4-environment")["data"]
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        assert settings[name] == "/etc/unio4/ca/all.pem"
    for task in tasks(SURROUNDINGS):
        [volume] = task["configMapAsVolume"]
        assert (volume["configMapName"], volume["mountPath"]) == ("corp-ca", "/etc/unio4/ca")
    assert "AWS_CA_BUNDLE" not in find(render({}), "ConfigMap", "unio4-environment")["data"]


def test_claims_reach_the_pods() -> None:
    """Those of the stage that reads datasets, and no others: a volume may belong to one node."""
    spec = pipelines(render(SURROUNDINGS))["unio4.yaml"][1]
    executors = spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [name for name, task in executors.items() if "pvcMount" in task] == ["exec-prepare-dataset"]
    [mount] = executors["exec-prepare-dataset"]["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("datasets", "/data")
    assert mount["pvcNameParameter"] == {"runtimeValue": {"constant": "datasets"}}


def test_parameters_have_the_defaults_of_the_release() -> None:
    declared = pipelines(render(SURROUNDINGS))["unio4.yaml"][0]["root"]["inputDefinitions"]["parameters"]
    defaults = {name: one.get("defaultValue") for name, one in declared.items()}
    assert (defaults["preset"], defaults["seed"]) == ("standard", 3)
    assert (defaults["cpu_request"], defaults["node_selector"]) == ("2", {"pool": "rl"})
    assert defaults["artifact_root"] == "s3://unio4/artifacts"
    assert defaults["mlflow_tracking_uri"] == "http://unio4-mlflow.team.svc.cluster.local:5000"
    # All that is left to say is what to learn from.
    assert [name for name, one in declared.items() if not one.get("isOptional")] == ["dataset"]


def test_nothing_else_of_a_pipeline_changes(repository: Any) -> None:
    compiled = tuple(documents((repository / "pipelines" / "compiled" / "unio4.yaml").read_text()))
    rendered = pipelines(render({"image": {"registry": "", "tag": "1"}}))["unio4.yaml"]
    assert compiled[0]["components"].keys() == rendered[0]["components"].keys()
    for name, task in compiled[0]["root"]["dag"]["tasks"].items():
        assert rendered[0]["root"]["dag"]["tasks"][name] == task
    for name, executor in compiled[0]["deploymentSpec"]["executors"].items():
        made = rendered[0]["deploymentSpec"]["executors"][name]["container"]
        assert {**executor["container"], "image": ""} == {**made, "image": ""}
    for name, task in compiled[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        made = rendered[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
        changed = {"secretAsEnv", "configMapAsEnv"}
        assert {key: made[key] for key in made if key not in changed} == {
            key: task[key] for key in task if key not in changed
        }


def test_two_releases_have_two_pipelines_in_kfp() -> None:
    def names(values: Values, release: str) -> set[str]:
        return {spec["pipelineInfo"]["name"] for spec, _ in pipelines(render(values, release)).values()}

    assert names({}, "unio4") >= {"unio4-sweep", "unio4"}
    assert names({}, "other") >= {"other-unio4-sweep", "other-unio4"}
    assert names({"kfp": {"pipelineName": "rl"}}, "other") >= {"rl-sweep", "rl"}
    values = {"kfp": {"recurringRun": {"enabled": True, "parameters": {"dataset": "a"}}}}
    [container] = find(render(values, "other"), "Job", "other-unio4-register")["spec"]["template"]["spec"][
        "containers"
    ]
    [recurring] = [one["value"] for one in container["env"] if one["name"] == "RECURRING_RUN"]
    assert '"pipeline":"other-unio4"' in recurring


@pytest.mark.parametrize("name", SURROUNDED)
def test_the_api_server_would_take_every_pod(name: str, kubectl: Path, tmp_path: Path) -> None:
    """As KFP's driver makes it and Argo's merge leaves it; see kfp_pods.py."""
    data = find(render(GOOD[name]), "ConfigMap", "unio4-pipelines")["data"]
    for file, text in data.items():
        (tmp_path / file).write_text(text)
        made = pods(tmp_path / file, kubectl)
        assert made
        assert [line for pod in made for line in violations(pod)] == []
