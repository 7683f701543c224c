"""The rules of an API server that schemas do not hold: a good manifest passes, each breakage is named."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes_rules import quantity, violations

GOOD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "unio4-a1b2", "labels": {"a.b/name": "unio4"}, "annotations": {"a/b": "c"}},
    "spec": {
        "serviceAccountName": "pipeline-runner",
        "activeDeadlineSeconds": 60,
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}}],
        "initContainers": [{"name": "first", "image": "a/b:1"}],
        "containers": [
            {
                "name": "main",
                "image": "a/b:1",
                "env": [
                    {"name": "PLAIN", "value": "x"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "m"}}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                "resources": {
                    "requests": {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "1"},
                    "limits": {"cpu": 1, "memory": "4Gi", "nvidia.com/gpu": "1", "ephemeral-storage": "1e9"},
                },
                "ports": [{"name": "http", "containerPort": 80}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "successThreshold": 2},
                "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
            }
        ],
    },
}  # fmt: skip


def main(pod: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod["spec"]["containers"][0]
    return container


def test_a_good_pod_passes() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            lambda p: main(p)["env"][1]["valueFrom"].update(configMapKeyRef={"name": "m", "key": "k"}),
            "one field",
        ),
        (lambda p: main(p)["env"][1].update(value="x"), "when `value` is not empty"),
        (lambda p: main(p)["env"].append({"name": "PLAIN", "value": "y"}), "PLAIN is there twice"),
        (lambda p: main(p)["env"].append({"name": "1 A"}), "no name of a variable"),
        (lambda p: main(p)["env"].append({"name": "N", "value": 1}), "1 is not a text"),
        (lambda p: main(p)["env"][1]["valueFrom"]["secretKeyRef"].pop("key"), "needs name and key"),
        (
            lambda p: main(p)["env"][2]["valueFrom"]["fieldRef"].update(fieldPath="spec.x"),
            "no field of a pod",
        ),
        (lambda p: main(p)["envFrom"][0].update(secretRef={"name": "s"}), "envFrom: expected one of"),
        (
            lambda p: main(p)["volumeMounts"].append({"name": "none", "mountPath": "/x"}),
            "'none' is no volume",
        ),
        (
            lambda p: main(p)["volumeMounts"].append({"name": "scratch", "mountPath": "/tmp"}),
            "must be unique",
        ),
        (lambda p: main(p)["volumeMounts"][0].update(subPath="../x"), "must stay inside"),
        (
            lambda p: p["spec"]["volumes"].append({"name": "scratch", "emptyDir": {}}),
            "'scratch' is there twice",
        ),
        (lambda p: p["spec"]["volumes"].append({"name": "A_b", "emptyDir": {}}), "is no label of at most 63"),
        (lambda p: p["spec"]["volumes"][0].update(secret={"secretName": "s"}), "2 sources"),
        (lambda p: p["spec"]["volumes"][0]["emptyDir"].update(sizeLimit="much"), "sizeLimit: 'much'"),
        (lambda p: main(p)["resources"]["limits"].update(cpu="lots"), "limits.cpu: 'lots' is no quantity"),
        (lambda p: main(p)["resources"]["limits"].update(cpu="-1"), "limits.cpu: '-1' is no quantity"),
        (
            lambda p: main(p)["resources"]["requests"].update(cpu="2"),
            "requests.cpu: 2 is more than the limit 1",
        ),
        (lambda p: main(p)["resources"]["limits"].update({"nvidia.com/gpu": "2"}), "must equal its limit"),
        (lambda p: main(p)["resources"]["limits"].update({"a/b": "0.5"}), "no whole number"),
        (lambda p: main(p)["resources"]["limits"].update(disk="1"), "'disk' is no resource"),
        (lambda p: main(p)["ports"].append({"name": "http", "containerPort": 81}), "'http' is there twice"),
        (lambda p: main(p)["ports"].append({"containerPort": 70000}), "70000 is no port"),
        (
            lambda p: main(p)["ports"].append({"name": "a-name-too-long-for-it", "containerPort": 1}),
            "of a port",
        ),
        (lambda p: main(p)["readinessProbe"]["httpGet"].update(port="web"), "has no port 'web'"),
        (lambda p: main(p)["readinessProbe"].update(tcpSocket={"port": 80}), "2 handlers"),
        (lambda p: main(p)["readinessProbe"].update(periodSeconds=0), "periodSeconds: must be above 0"),
        (lambda p: main(p).update(livenessProbe={"exec": {}, "successThreshold": 2}), "Threshold: must be 1"),
        (
            lambda p: p["spec"]["initContainers"][0].update(livenessProbe={"exec": {}}),
            "not for an init container",
        ),
        (lambda p: p["spec"]["initContainers"][0].update(name="main"), "container 'main' is there twice"),
        (lambda p: main(p).update(image=""), "is no image"),
        (lambda p: main(p)["securityContext"].update(runAsUser=0), "runs as root, and must not"),
        (lambda p: p["spec"].update(containers=[]), "containers: there is none"),
        (lambda p: p["spec"]["nodeSelector"].update({"a b": "c"}), "'a b' is no qualified name"),
        (lambda p: p["spec"]["nodeSelector"].update(pool=True), "pool is True, not a text"),
        (lambda p: p["spec"]["tolerations"][0].update(value="x"), "gpu has a value beside Exists"),
        (lambda p: p["spec"]["tolerations"][0].update(effect="Never"), "effect 'Never'"),
        (lambda p: p["spec"]["tolerations"][0].update(tolerationSeconds=1), "without NoExecute"),
        (lambda p: p["spec"]["tolerations"].append({"effect": "NoExecute"}), "operator must be Exists"),
        (lambda p: p["spec"].update(activeDeadlineSeconds=0), "activeDeadlineSeconds: must be above 0"),
        (lambda p: p["spec"].update(serviceAccountName="A b"), "'A b' is no name"),
        (lambda p: p["metadata"].update(name="Unio4_x"), "is no name of at most 253"),
        (lambda p: p["metadata"]["labels"].update(x="y" * 64), "no value of a label"),
        (lambda p: p["metadata"]["annotations"].update(x=1), "x is 1, not a text"),
    ],
)
def test_a_breakage_is_named(broken: Callable[[dict[str, Any]], Any], words: str) -> None:
    pod = copy.deepcopy(GOOD)
    broken(pod)
    found = violations(pod)
    assert any(words in line for line in found), found


def template(**pod: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "a", "image": "b"}], **pod}
    return {"metadata": {"labels": {"app": "x"}}, "spec": spec}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"kind": "Job", "spec": {"template": template()}}, "restartPolicy: Always; expected Never or"),
        ({"kind": "Deployment", "spec": {"template": template(restartPolicy="Never")}}, "expected Always"),
        (
            {"kind": "Job", "spec": {"template": template(), "selector": {"matchLabels": {"app": "y"}}}},
            "selector: app=y is no label of its own pods",
        ),
        ({"kind": "CronJob", "metadata": {"name": "x" * 53}}, "is no name of at most 52"),
        ({"kind": "Service", "metadata": {"name": "9x"}}, "is no name of at most 63"),
        ({"kind": "Service", "spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}, "has no name"),
        ({"kind": "ConfigMap", "data": {"a b": "c"}}, "'a b' is no key"),
        ({"kind": "ConfigMap", "data": {"a": "c" * 1048577}}, "more than 1048576 bytes"),
        ({"kind": "PersistentVolumeClaim", "spec": {"resources": {"requests": {"storage": "0"}}}}, "above 0"),
        ({"kind": "StatefulSet", "spec": {"template": template(), "volumeClaimTemplates": [
            {"metadata": {"name": "d"}, "spec": {"accessModes": ["x"]}}]}}, "not a quantity above 0"),
    ],
)  # fmt: skip
def test_breakages_of_other_kinds(manifest: dict[str, Any], words: str) -> None:
    found = violations({"metadata": {"name": "x"}, **manifest})
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("1.5G", 1.5e9), ("1e3", 1000), ("Gi", None)]
)
def test_quantities(text: str, value: float | None) -> None:
    found = quantity(text)
    assert (None if found is None else float(found)) == value
