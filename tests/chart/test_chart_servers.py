"""What was learned of the servers and jobs on a real cluster, seen in the renderings."""

from typing import Any

import pytest
from chart_values import GOOD, MORE
from kubernetes_rules import quantity
from rendered_chart import containers, find, pod_labels, pod_spec, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
ISTIO = "sidecar.istio.io/inject"


def seaweedfs(values: dict[str, Any]) -> dict[str, Any]:
    return dict(find(render(values), "StatefulSet", "unio4-s3")["spec"]["template"]["spec"])


@pytest.mark.parametrize("name", ["defaults", "laptop", "labels and placement"])
def test_two_pods_of_seaweedfs_never_share_a_volume(name: str) -> None:
    """Nor while the Deployment of an older chart ends, which has the same labels."""
    manifests = render(GOOD[name])
    labels = pod_labels(find(manifests, "StatefulSet", "unio4-s3"))
    [term] = seaweedfs(GOOD[name])["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    assert set(term["labelSelector"]["matchLabels"]) <= {
        f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")
    }


def test_affinity_of_the_values_stands_beside_that_of_seaweedfs() -> None:
    wanted = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert set(seaweedfs({"scheduling": {"affinity": wanted}})["affinity"]) == {
        "nodeAffinity",
        "podAntiAffinity",
    }
    spec = pod_spec(find(render({"scheduling": {"affinity": wanted}}), "Deployment", "unio4-mlflow"))
    assert spec is not None and spec["affinity"] == wanted


def test_seaweedfs_gets_the_memory_that_it_was_seen_to_take() -> None:
    [container] = seaweedfs({})["containers"]
    asked = quantity(container["resources"]["requests"]["memory"])
    assert asked is not None and asked >= 647_000_000
    # A volume of 4 GiB has room for the two times seven files that two buckets begin with.
    assert "-master.volumeSizeLimitMB=256" in container["args"]


def test_mlflow_answers_until_every_node_knows_that_it_goes() -> None:
    spec = pod_spec(find(render({}), "Deployment", "unio4-mlflow"))
    assert spec is not None
    assert spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    assert spec.get("terminationGracePeriodSeconds", 30) > 10


@pytest.mark.parametrize("name", GOOD)
def test_no_side_car_in_namespaces_of_users(name: str) -> None:
    many = GOOD[name].get("kfp", {}).get("multiUser", False)
    for manifest in render(GOOD[name]):
        if pod_spec(manifest):
            assert pod_labels(manifest).get(ISTIO) == ("false" if many else None)


def test_a_side_car_can_be_wanted() -> None:
    values = {"kfp": {"multiUser": True}, "podLabels": {ISTIO: "true"}}
    assert pod_labels(find(render(values), "Deployment", "unio4-mlflow"))[ISTIO] == "true"


def test_profiles_keep_their_launcher() -> None:
    """KFP makes it in each user's namespace, and Helm takes over nothing that it has not made."""
    names = [one["metadata"]["name"] for one in render(GOOD["team-aws"])]
    assert "kfp-launcher" not in names


@pytest.mark.parametrize("name", ["authentication", "maintenance", "air-gapped"])
def test_pods_of_the_pipeline_hold_no_keys_of_an_administrator(name: str) -> None:
    manifests = render(GOOD[name])
    role = find(manifests, "Role", "unio4-pipeline")
    readable = {name for rule in role["rules"] for name in rule.get("resourceNames", [])}
    assert "unio4-s3" not in readable and "unio4-mlflow" not in readable
    text = find(manifests, "ConfigMap", "unio4-pipelines")["data"]["unio4.yaml"]
    assert "secretName: unio4-mlflow\n" not in text
    assert "secretName: unio4-s3\n" not in text


def test_jobs_end_before_their_deadline() -> None:
    """Two tries of the longest wait: else Kubernetes ends the job, and with it the line that says why."""
    for manifest in render({"mlflow": {"auth": {"enabled": True}}}):
        if manifest["kind"] == "Job":
            spec = manifest["spec"]
            [container] = spec["template"]["spec"]["containers"]
            [wait] = [int(one["value"]) for one in container["env"] if one["name"] == "TIMEOUT_SECONDS"]
            assert wait * (spec["backoffLimit"] + 1) < spec["activeDeadlineSeconds"]
            assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"FailJob", "Ignore"}


def test_each_part_gets_what_is_given_for_it() -> None:
    """Environment and mounts in every container, jobs on a schedule and the release's test included."""
    manifests = render(GOOD["more for each part"])
    for manifest in manifests:
        if spec := pod_spec(manifest):
            assert spec["priorityClassName"] == "higher", manifest["metadata"]["name"]
            assert {"name": "more", "configMap": {"name": "more"}} in spec["volumes"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                assert container["env"][-1] == {"name": "MORE", "value": "1"}, container["name"]
                assert [one["name"] for one in container["volumeMounts"]].count("more") == 1
    only_mlflow = render({"mlflow": MORE, "scheduling": {"priorityClassName": "high"}})
    classes = {
        one["metadata"]["name"]: spec["priorityClassName"] for one in only_mlflow if (spec := pod_spec(one))
    }
    assert classes.pop("unio4-mlflow") == "higher"
    assert set(classes.values()) == {"high"}


def test_servers_listen_on_ipv6_where_that_is_all() -> None:
    words = [
        word
        for name in ("mlflow", "seaweedfs")
        for _, _, container in containers(render(GOOD["more for each part"]))
        if container["name"] == name
        for word in container["args"]
    ]
    assert {"--host=::", "-ip.bind=::"} <= set(words)
    assert not any("0.0.0.0" in word for word in words)
