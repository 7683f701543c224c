"""What holds for every object of every rendering."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from chart_values import GOOD
from rendered_chart import LONGEST_RELEASE, Manifest, containers, pod_spec, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")

CLUSTER_WIDE = (
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PersistentVolume",
)
PERMISSION_LABELS = ("name", "instance", "component", "part-of", "version", "managed-by")
RELEASES = ("unio4", LONGEST_RELEASE)
# Kubernetes adds "-" and ten characters for a revision of a StatefulSet, which must fit into a label.
ROOM = {"StatefulSet": 52, "CronJob": 52}
HAS_SERVER = ("Deployment", "StatefulSet")
WORDS_OF_SECRETS = re.compile(r"(?i)password|secret_?(access)?_?key|token$|access_key_id")


@pytest.fixture(params=[(name, release) for name in GOOD for release in RELEASES], ids=str, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    name, release = request.param
    return render(GOOD[name], release)


def where(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def test_pod_security_is_restricted(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if spec := pod_spec(manifest):
            context = spec["securityContext"]
            assert context["runAsNonRoot"] is True, where(manifest)
            assert context["runAsUser"] > 0, where(manifest)
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where(manifest)
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where(manifest)
            allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "name"}
            assert {key for volume in spec.get("volumes", []) for key in volume} <= allowed, where(manifest)
    for manifest, _, container in containers(manifests):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, where(manifest)
        assert context["readOnlyRootFilesystem"] is True, where(manifest)
        assert context["capabilities"] == {"drop": ["ALL"]}, where(manifest)
        assert "privileged" not in context, where(manifest)
        assert not any("hostPort" in port for port in container.get("ports", [])), where(manifest)


def test_no_pod_holds_a_token_of_the_cluster(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if spec := pod_spec(manifest):
            assert spec["automountServiceAccountToken"] is False, where(manifest)
            for volume in spec.get("volumes", []):
                for source in volume.get("projected", {}).get("sources", []):
                    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


def test_resources_and_probes(manifests: list[Manifest]) -> None:
    for manifest, field, container in containers(manifests):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where(manifest)
        assert "memory" in container["resources"]["limits"], where(manifest)
        if manifest["kind"] in HAS_SERVER and field == "containers":
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), where(manifest)


def test_images_have_versions(manifests: list[Manifest]) -> None:
    for manifest, _, container in containers(manifests):
        image = container["image"]
        versioned = re.search(r"@sha256:[0-9a-f]{64}$|:[A-Za-z0-9_][\w.-]*$", image)
        assert versioned and not image.endswith(":latest"), f"{where(manifest)}: {image}"


def test_secrets_come_by_reference(manifests: list[Manifest]) -> None:
    generated = [value for one in manifests if one["kind"] == "Secret" for value in one["data"].values()]
    others = repr([one for one in manifests if one["kind"] != "Secret"])
    for value in generated:
        assert value not in others
    for manifest, _, container in containers(manifests):
        for variable in container.get("env", []):
            if WORDS_OF_SECRETS.search(variable["name"]):
                assert "secretKeyRef" in variable.get("valueFrom", {}), f"{where(manifest)}: {variable}"
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            for key, value in manifest["data"].items():
                assert not WORDS_OF_SECRETS.search(key), where(manifest)
                assert not re.search(r"://[^/\s:]+:[^/\s@$]+@", value), where(manifest)


def test_no_secret_is_made_where_one_is_named() -> None:
    made = [where(one) for one in render(GOOD["own volumes and secrets"]) if one["kind"] == "Secret"]
    assert made == []


def test_permissions_are_small(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["kind"] not in CLUSTER_WIDE
        if manifest["kind"] == "Role":
            for rule in manifest["rules"]:
                for values in rule.values():
                    assert "*" not in values, where(manifest)
                if "secrets" in rule["resources"]:
                    assert rule["verbs"] == ["get"], where(manifest)
                    assert rule["resourceNames"], where(manifest)
        if manifest["kind"] == "RoleBinding":
            assert manifest["roleRef"]["kind"] == "Role"


def test_labels_are_those_that_helm_recommends(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        wanted = {f"app.kubernetes.io/{label}" for label in PERMISSION_LABELS} | {"helm.sh/chart"}
        assert wanted <= set(labels), where(manifest)
        for key, value in labels.items():
            assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", value), f"{where(manifest)}: {key}"
        selector = manifest.get("spec", {}).get("selector", {})
        chosen = selector.get("matchLabels", {}) if isinstance(selector, dict) else {}
        # What changes with the version must not choose pods: a selector can never be changed.
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(chosen)


def test_names_fit(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), where(manifest)
        assert len(name) <= ROOM.get(manifest["kind"], 63), where(manifest)


def references(node: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of what a part of a manifest refers to."""
    if isinstance(node, list):
        for one in node:
            yield from references(one)
    elif isinstance(node, dict):
        if "secretKeyRef" in node:
            yield "Secret", node["secretKeyRef"]["name"]
        if isinstance(node.get("configMap"), dict):
            yield "ConfigMap", node["configMap"]["name"]
        if isinstance(node.get("persistentVolumeClaim"), dict):
            yield "PersistentVolumeClaim", node["persistentVolumeClaim"]["claimName"]
        if isinstance(node.get("serviceAccountName"), str):
            yield "ServiceAccount", node["serviceAccountName"]
        for one in node.values():
            yield from references(one)


def test_everything_that_is_referred_to_is_there(manifests: list[Manifest]) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    given = ("keys", "login", "admin", "db", "a", "b", "corp-ca", "unio4-ceph", "unio4-rds", "runner")
    for manifest in manifests:
        for kind, name in references(pod_spec(manifest) or {}):
            assert (kind, name) in there or name in given, f"{where(manifest)}: {kind}/{name}"


def test_volumes_and_generated_secrets_survive_the_release(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Secret", "PersistentVolumeClaim"):
            assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", where(manifest)
