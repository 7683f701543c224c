"""Every set of values through real Helm: lint, schemas of every kind, and messages for what is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart_values import BAD, GOOD, Values
from kubernetes_rules import violations
from quick_yaml import documents
from rendered_chart import (
    CHART,
    LONGEST_RELEASE,
    NAMESPACE,
    Manifest,
    check_schema,
    containers,
    find,
    notes,
    render,
    rendered_files,
)

helm_python = pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

# The oldest that the chart says it runs on, one between, and the newest known.
KUBERNETES = ("1.27", "1.32", "1.37")


@pytest.mark.parametrize("name", GOOD)
def test_lint_is_clean(name: str) -> None:
    report = helm_python.lint(CHART, GOOD[name], strict=True, namespace=NAMESPACE)
    assert report["errors"] == []
    # An icon would be a file on somebody's server.
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", GOOD)
def test_every_object_is_valid(name: str, version: str) -> None:
    manifests = render(GOOD[name])
    assert len(manifests) > 8
    for manifest in manifests:
        check_schema(manifest, version)


@pytest.mark.parametrize("release", ["unio4", LONGEST_RELEASE])
@pytest.mark.parametrize("name", GOOD)
def test_the_api_server_would_take_every_object(name: str, release: str) -> None:
    """What schemas do not say: see kubernetes_rules.py."""
    assert [line for manifest in render(GOOD[name], release) for line in violations(manifest)] == []


WRONG: dict[str, tuple[str, Values]] = {
    "a variable twice": (
        "is there twice",
        {"mlflow": {"extraEnv": [{"name": "PGHOST", "value": "a"}]}},
    ),
    "no field of a pod": (
        "is no field of a pod",
        {"mlflow": {"extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.ip"}}}]}},
    ),
    "a label with a space": ("no value of a label", {"podLabels": {"team": "a b"}}),
    "a label's long name": ("is no qualified name", {"commonLabels": {"a" * 64: "b"}}),
    "a node's label": ("nodeSelector", {"scheduling": {"nodeSelector": {"disk": "a/b"}}}),
    "a toleration": ("tolerations", {"scheduling": {"tolerations": [{"operator": "Equal"}]}}),
    "a resource": (
        "is no resource",
        {"jobs": {"resources": {"requests": {"gpu": "1"}}}},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_the_api_server_would_refuse(name: str) -> None:
    """The rules notice what a schema of values cannot say."""
    expected, values = WRONG[name]
    assert expected in "\n".join(line for manifest in render(values) for line in violations(manifest))


def test_oldest_kubernetes_is_that_of_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


def changed(manifest: Manifest, *path: Any, value: Any) -> Manifest:
    """A copy with another value at a place."""
    copied: Any = json.loads(json.dumps(manifest))
    node = copied
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return dict(copied)


@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas_refuse_what_is_wrong(version: str) -> None:
    service = find(render({}), "Service", "unio4-mlflow")
    route = find(render(GOOD["gateway"]), "HTTPRoute", "unio4-mlflow")
    monitor = find(render(GOOD["prefix"]), "ServiceMonitor", "unio4-mlflow")
    for wrong in (
        changed(service, "spec", "port", value=5000),
        changed(service, "spec", "ports", 0, "port", value="5000"),
        changed(route, "spec", "backendRefs", value=[]),
        changed(route, "spec", "rules", 0, "matches", 0, "path", "type", value="Prefix"),
        changed(route, "spec", "rules", 0, "matches", 0, "path", "value", value="mlflow"),
        changed(route, "spec", "hostnames", value=["https://a.example"]),
        changed(route, "spec", "rules", 0, "backendRefs", 0, "port", value=None),
        changed(route, "apiVersion", value="gateway.networking.k8s.io/v1alpha2"),
        changed(monitor, "spec", "endpoints", 0, "interval", value="30 seconds"),
        changed(monitor, "spec", "endpoints", 0, "ports", value="http"),
        changed(monitor, "spec", "selector", "app", value="mlflow"),
    ):
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check_schema(wrong, version)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_kind_without_schema_is_refused(version: str) -> None:
    unknown = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "a"}}
    for wrong in (unknown, unknown | {"kind": "Service"}, unknown | {"apiVersion": "v1"}):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            check_schema(wrong, version)


def test_every_template_and_switch_is_rendered() -> None:
    """No part of the chart escapes the tests of this folder because no set of values turns it on or off."""
    written = {
        name.partition("templates/")[2]
        for values in GOOD.values()
        for name, text in rendered_files(values).items()
        if text.strip()
    }
    templates = {str(path.relative_to(CHART / "templates")) for path in (CHART / "templates").rglob("*.yaml")}
    assert templates - written == {"checks.yaml"}

    def switches(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from switches(value, (*path, key))
            elif isinstance(value, bool):
                yield (*path, key), value

    default = dict(switches(yaml.safe_load((CHART / "values.yaml").read_text())))
    turned = {switch for values in GOOD.values() for switch in switches(values)}
    never = {path for path, value in default.items() if (path, not value) not in turned}
    assert never == set()


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
    assert "secretName: other-unio4-s3-pipeline\n" in text
    assert "constant: other-unio4-s3-pipeline\n" in text
    assert "secretName: other-unio4-mlflow-pipeline\n" in text
    assert ": unio4-s3" not in text
    for pipeline in data["data"].values():
        assert documents(pipeline)[0]["pipelineInfo"]["name"]


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


@pytest.mark.parametrize(("address", "host"), [("10.9.8.7", "10.9.8.7"), ("fd00::7", "[fd00::7]")])
def test_mlflow_knows_the_address_of_its_pod(address: str, host: str) -> None:
    """As MLflow itself compares names; an address of IPv6 has brackets in a request."""
    security = pytest.importorskip("mlflow.server.security_utils", reason="no mlflow")
    [hosts] = [
        argument.removeprefix("--allowed-hosts=").replace("$(POD_IP)", address).split(",")
        for _, _, one in containers(render({}))
        for argument in one.get("args", ())
        if argument.startswith("--allowed-hosts=")
    ]
    for asked in (host, f"{host}:5000"):
        assert security.is_allowed_host_header(hosts, asked)
    assert not security.is_allowed_host_header(hosts, "[fd00::8]:5000")


def test_two_long_names_stay_two() -> None:
    name = {one["metadata"]["name"] for one in render({}, LONGEST_RELEASE)}
    other = {one["metadata"]["name"] for one in render({}, LONGEST_RELEASE[:-1] + "c")}
    assert name & other == set()


@pytest.mark.parametrize("name", GOOD)
def test_notes_tell_what_to_do_in_three_steps(name: str) -> None:
    text = notes(GOOD[name])
    assert [line[:2] for line in text.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]
    assert "<no value>" not in text


def test_notes_warn_where_the_network_policy_keeps_others_out() -> None:
    warning = "networkPolicy.mlflowFrom"
    assert warning in notes(GOOD["ingress"])
    assert warning in notes(GOOD["many pods"])
    assert warning not in notes(GOOD["air-gapped"])
    assert warning not in notes({})


def test_a_release_whose_names_no_service_may_have_is_refused() -> None:
    for release in ("1st", "a.b"):
        with pytest.raises(helm_python.errors.HelmError, match="fullnameOverride"):
            render({}, release)
        assert render({"fullnameOverride": "first"}, release)
