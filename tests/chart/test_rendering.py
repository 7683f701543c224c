"""Every set of values through real Helm: lint, Kubernetes' own schemas, and messages for what is wrong."""

import json
from typing import Any

import pytest
import yaml
from chart_values import BAD, GOOD
from rendered_chart import CHART, LONGEST_RELEASE, NAMESPACE, check_schema, containers, find, notes, render

helm_python = pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

KUBERNETES = ("1.30", "1.33", "1.36")
# Kinds of operators: their schemas do not come with Kubernetes.
OF_OPERATORS = ("ServiceMonitor", "HTTPRoute")


@pytest.mark.parametrize("name", GOOD)
def test_lint_is_clean(name: str) -> None:
    report = helm_python.lint(CHART, GOOD[name], strict=True, namespace=NAMESPACE)
    assert report["errors"] == []
    # An icon would be a file on somebody's server.
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", GOOD)
def test_kubernetes_accepts_every_object(name: str, version: str) -> None:
    checked = 0
    for manifest in render(GOOD[name]):
        if manifest["kind"] not in OF_OPERATORS:
            check_schema(manifest, version)
            checked += 1
    assert checked > 8


def test_the_schemas_of_kubernetes_refuse_what_is_wrong() -> None:
    service = find(render({}), "Service", "unio4-mlflow")
    wrong = json.loads(json.dumps(service))
    wrong["spec"]["port"] = 5000
    with pytest.raises(kubernetes_validate.ValidationError, match="port"):
        check_schema(wrong, KUBERNETES[0])


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_by_name(name: str) -> None:
    values, named = BAD[name]
    with pytest.raises(helm_python.errors.HelmError) as refused:
        render(values)
    assert named in str(refused.value)


def test_every_key_of_the_values_is_in_the_schema_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        reference = node.get("$ref", "")
        return schema["definitions"][reference.removeprefix("#/definitions/")] if reference else node

    def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        assert node["additionalProperties"] is False, path
        known = set(node["properties"])
        optional = (
            {"fsGroupChangePolicy", "supplementalGroups"} if path.endswith("podSecurityContext") else set()
        )
        assert set(values) == known - optional, path
        for key, value in values.items():
            child = resolve(node["properties"][key])
            if isinstance(value, dict) and "properties" in child:
                compare(value, child, f"{path}.{key}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


def test_images_of_the_pipelines_are_those_of_the_values() -> None:
    digest = "sha256:" + "a" * 64
    values = {
        "global": {"imageRegistry": "registry.example/mirror"},
        "image": {"tag": "9", "digests": {"prepare-dataset": digest}},
    }
    data = find(render(values), "ConfigMap", "unio4-pipelines")["data"]
    text = "\n".join(data.values())
    assert "registry.example/mirror/unio4/improve-policy:9\n" in text
    assert f"registry.example/mirror/unio4/prepare-dataset@{digest}" in text
    for line in text.splitlines():
        assert "image: unio4/" not in line
        assert "defaultValue: unio4/" not in line


def test_pipelines_read_the_secrets_of_their_release() -> None:
    data = find(
        render({"mlflow": {"auth": {"enabled": True}}}, "other"), "ConfigMap", "other-unio4-pipelines"
    )
    text = "\n".join(data["data"].values())
    assert "secretName: other-unio4-s3\n" in text
    assert "constant: other-unio4-s3\n" in text
    assert "secretName: other-unio4-mlflow\n" in text
    assert ": unio4-s3" not in text
    for pipeline in data["data"].values():
        assert next(iter(yaml.safe_load_all(pipeline)))["pipelineInfo"]["name"]


def test_without_keys_the_pipelines_ask_for_an_optional_secret() -> None:
    text = "\n".join(find(render(GOOD["team-aws"]), "ConfigMap", "unio4-pipelines")["data"].values())
    assert "optional: true\n            secretName: unio4-s3\n" in text


def test_mlflow_knows_every_name_it_is_called_by() -> None:
    manifests = render(GOOD["ingress"])
    [server] = [
        one for _, field, one in containers(manifests) if one["name"] == "mlflow" and field == "containers"
    ]
    [hosts] = [argument for argument in server["args"] if argument.startswith("--allowed-hosts=")]
    names = hosts.removeprefix("--allowed-hosts=").split(",")
    for name in ("unio4-mlflow", f"unio4-mlflow.{NAMESPACE}.svc.cluster.local", "mlflow.example"):
        assert name in names
        assert f"{name}:*" in names
    assert "*" not in names


def test_two_long_names_stay_two() -> None:
    name = {one["metadata"]["name"] for one in render({}, LONGEST_RELEASE)}
    other = {one["metadata"]["name"] for one in render({}, LONGEST_RELEASE[:-1] + "c")}
    assert name & other == set()


@pytest.mark.parametrize("name", GOOD)
def test_notes_tell_three_commands(name: str) -> None:
    text = notes(GOOD[name])
    for command in ("helm test unio4 --namespace team --logs", "kfp --endpoint "):
        assert command in text
    assert [line[:2] for line in text.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]
