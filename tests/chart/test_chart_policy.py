"""The rules of chart_policy.py for every object of every rendering; and that each notices what breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import chart_policy as policy
import pytest
from chart_policy import RULES, Rule
from chart_values import GOOD
from rendered_chart import LONGEST_RELEASE, Manifest, find, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")

RELEASES = ("unio4", LONGEST_RELEASE)
Break = Callable[[list[Manifest]], object]


@pytest.fixture(params=[(name, release) for name in GOOD for release in RELEASES], ids=str, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    name, release = request.param
    return render(GOOD[name], release)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(manifests: list[Manifest], rule: Rule) -> None:
    rule(manifests)


def test_no_secret_is_made_where_one_is_named() -> None:
    made = [one for one in render(GOOD["own volumes and secrets"]) if one["kind"] == "Secret"]
    assert made == []


# --- The rules notice -----------------------------------------------------


def server(manifests: list[Manifest]) -> Any:
    return find(manifests, "Deployment", "unio4-mlflow")["spec"]["template"]["spec"]


def container(manifests: list[Manifest]) -> Any:
    return server(manifests)["containers"][0]


def add(manifests: list[Manifest], kind: str, **fields: object) -> None:
    labels = find(manifests, "Service", "unio4-mlflow")["metadata"]["labels"]
    metadata = {"name": "unio4-more", "labels": labels, "annotations": {}}
    manifests.append({"kind": kind, "metadata": metadata} | fields)


def variable(name: str, value: str) -> Break:
    return lambda all: container(all)["env"].append({"name": name, "value": value})


def allow(group: str, resource: str, *verbs: str) -> Break:
    rule = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return lambda all: find(all, "Role", "unio4-pipeline")["rules"].append(rule)


def rename(name: str) -> Break:
    return lambda all: find(all, "Service", "unio4-mlflow")["metadata"].update(name=name)


BROKEN: dict[str, tuple[Rule, Break]] = {
    "ClusterRole": (policy.kinds_are_of_a_namespace, lambda all: add(all, "ClusterRole", rules=[])),
    "PriorityClass": (policy.kinds_are_of_a_namespace, lambda all: add(all, "PriorityClass", value=1)),
    "root": (
        policy.pod_security_is_restricted,
        lambda all: server(all)["securityContext"].update(runAsUser=0),
    ),
    "perhaps root": (
        policy.pod_security_is_restricted,
        lambda all: server(all)["securityContext"].update(runAsNonRoot=False),
    ),
    "container as root": (
        policy.pod_security_is_restricted,
        lambda all: container(all)["securityContext"].update(runAsUser=0),
    ),
    "no seccomp": (
        policy.pod_security_is_restricted,
        lambda all: server(all)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    ),
    "container without seccomp": (
        policy.pod_security_is_restricted,
        lambda all: container(all)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    ),
    "capability": (
        policy.pod_security_is_restricted,
        lambda all: container(all)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    ),
    "writable root": (
        policy.pod_security_is_restricted,
        lambda all: container(all)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    "folder of the node": (
        policy.pod_security_is_restricted,
        lambda all: server(all)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    "token in the pod": (
        policy.no_pod_holds_a_token_of_the_cluster,
        lambda all: server(all).update(automountServiceAccountToken=True),
    ),
    "token of the account": (
        policy.no_pod_holds_a_token_of_the_cluster,
        lambda all: find(all, "ServiceAccount", "unio4-jobs").pop("automountServiceAccountToken"),
    ),
    "no probe": (policy.resources_and_probes_are_set, lambda all: container(all).pop("livenessProbe")),
    "no limit": (
        policy.resources_and_probes_are_set,
        lambda all: container(all)["resources"]["limits"].pop("memory"),
    ),
    "job without end": (
        policy.jobs_come_to_an_end,
        lambda all: find(all, "Job", "unio4-bucket")["spec"].pop("activeDeadlineSeconds"),
    ),
    "no drain": (
        policy.drains_are_possible,
        lambda all: find(all, "PodDisruptionBudget", "unio4-mlflow").update(spec={"minAvailable": 1}),
    ),
    "latest": (policy.images_have_versions, lambda all: container(all).update(image="mlflow/mlflow:latest")),
    "no tag": (policy.images_have_versions, lambda all: container(all).update(image="r.example:5000/mlflow")),
    "empty tag": (policy.images_have_versions, lambda all: container(all).update(image="mlflow/mlflow:")),
    "no tag in a pipeline": (
        policy.images_have_versions,
        lambda all: find(all, "ConfigMap", "unio4-pipelines")["data"].update(x="  image: mlflow"),
    ),
    "password in a variable": (policy.secrets_come_by_reference, variable("PGPASSWORD", "x")),
    "password in an address": (
        policy.secrets_come_by_reference,
        variable("X", "postgresql://me:x@db/mlflow"),
    ),
    "password in a setting": (
        policy.secrets_come_by_reference,
        lambda all: find(all, "ConfigMap", "unio4-environment")["data"].update(AWS_SECRET_ACCESS_KEY="x"),
    ),
    "generated value in an argument": (
        policy.secrets_come_by_reference,
        lambda all: container(all)["args"].append(
            policy.base64.b64decode(find(all, "Secret", "unio4-postgresql")["data"]["password"]).decode()
        ),
    ),
    "all secrets": (policy.permissions_are_small, allow("", "secrets", "get")),
    "more verbs": (policy.permissions_are_small, allow("", "pods", "get", "delete")),
    "more resources": (policy.permissions_are_small, allow("", "pods/exec", "get")),
    "everything": (policy.permissions_are_small, allow("*", "*", "*")),
    "role of the cluster": (
        policy.permissions_are_small,
        lambda all: find(all, "RoleBinding", "unio4-pipeline")["roleRef"].update(kind="ClusterRole"),
    ),
    "no label": (
        policy.labels_are_those_that_helm_recommends,
        lambda all: find(all, "Service", "unio4-s3")["metadata"]["labels"].pop("app.kubernetes.io/instance"),
    ),
    "no label of a pod": (
        policy.labels_are_those_that_helm_recommends,
        lambda all: (
            policy.pod_spec(find(all, "Job", "unio4-bucket"))
            and find(all, "Job", "unio4-bucket")["spec"]["template"]["metadata"].update(labels={})
        ),
    ),
    "version chooses pods": (
        policy.labels_are_those_that_helm_recommends,
        lambda all: find(all, "Deployment", "unio4-mlflow")["spec"]["selector"]["matchLabels"].update(
            {"helm.sh/chart": "unio4-0.2.0"}
        ),
    ),
    "long name": (policy.names_fit, rename("a" * 64)),
    "dotted name": (policy.names_fit, rename("a.b")),
    "name with a digit first": (policy.names_fit, rename("1-mlflow")),
    "volume goes": (
        policy.volumes_and_generated_secrets_survive,
        lambda all: (
            find(all, "PersistentVolumeClaim", "unio4-s3")["metadata"]["annotations"].clear()
            or find(all, "PersistentVolumeClaim", "unio4-s3")["metadata"]["annotations"].update(
                {"helm.sh/resource-policy": ""}
            )
        ),
    ),
    "other secret": (
        policy.what_is_referred_to_is_there,
        lambda all: find(all, "Secret", "unio4-s3")["metadata"].update(name="other"),
    ),
    "other key": (
        policy.what_is_referred_to_is_there,
        lambda all: find(all, "Secret", "unio4-s3")["data"].pop("AWS_ACCESS_KEY_ID"),
    ),
    "service without pods": (
        policy.what_points_somewhere_hits,
        lambda all: find(all, "Service", "unio4-s3")["spec"]["selector"].update(x="y"),
    ),
    "service without port": (
        policy.what_points_somewhere_hits,
        lambda all: find(all, "Service", "unio4-s3")["spec"]["ports"][0].update(targetPort="web"),
    ),
    "binding without role": (
        policy.what_points_somewhere_hits,
        lambda all: find(all, "RoleBinding", "unio4-pipeline")["roleRef"].update(name="other"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rule_notices(name: str) -> None:
    rule, broken = BROKEN[name]
    manifests = copy.deepcopy(render({"mlflow": {"podDisruptionBudget": {"enabled": True}}}))
    rule(manifests)
    broken(manifests)
    with pytest.raises((AssertionError, KeyError)):
        rule(manifests)


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _ in BROKEN.values()} == set(RULES)
