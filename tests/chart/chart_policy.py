"""What must hold for all objects of a release, each rule as a function that fails with the object's name."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

from rendered_chart import Manifest, containers, pod_labels, pod_spec

Rule = Callable[[list[Manifest]], None]
# Whatever is not here, belongs to the whole cluster or has not been thought about.
KINDS_OF_A_NAMESPACE = {
    "ConfigMap",
    "CronJob",
    "Deployment",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServiceMonitor",
    "StatefulSet",
}
OF_CONTAINERS = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
IDENTITIES = {"runAsUser", "runAsGroup", "fsGroup"}
OF_PODS = {"runAsNonRoot", "seccompProfile", "fsGroupChangePolicy", "supplementalGroups"} | IDENTITIES
SHARED_WITH_THE_NODE = {"hostNetwork", "hostPID", "hostIPC", "hostAliases", "shareProcessNamespace"}
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "name"}
# Group and resource, and all that may be asked of them in any Role.
PERMISSIONS = {
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "configmaps"): {"get"},
    ("", "secrets"): {"get"},
    ("pipelines.kubeflow.org", "pipelines"): {"get", "list", "create"},
    ("pipelines.kubeflow.org", "pipelines/versions"): {"get", "list", "create"},
    ("pipelines.kubeflow.org", "experiments"): {"get", "list", "create"},
    ("pipelines.kubeflow.org", "jobs"): {"get", "list", "create", "delete"},
}
BY_NAME_ONLY = {"configmaps", "secrets"}
LABELS = {
    f"app.kubernetes.io/{name}"
    for name in ("name", "instance", "component", "part-of", "version", "managed-by")
} | {"helm.sh/chart"}
# Kubernetes adds "-" and ten characters for a revision of a StatefulSet, which must fit into a label.
ROOM = {"StatefulSet": 52, "CronJob": 52}
SERVERS = ("Deployment", "StatefulSet")
WORDS_OF_SECRETS = re.compile(r"(?i)password|secret_?(access)?_?key|token$|access_key_id")
LOGIN_IN_AN_ADDRESS = re.compile(r"://[^/\s:@]*:[^/\s@$]+@")
IMAGE = re.compile(r"([\w.-]+(:\d+)?/)?[\w./-]+(:(?!latest$)\w[\w.-]*|@sha256:[0-9a-f]{64})")


def where(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def kinds_are_of_a_namespace(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["kind"] in KINDS_OF_A_NAMESPACE, where(manifest)


def pod_security_is_restricted(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if spec := pod_spec(manifest):
            context = spec["securityContext"]
            assert set(context) <= OF_PODS, where(manifest)
            assert context["runAsNonRoot"] is True, where(manifest)
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where(manifest)
            # Left out where the cluster chooses (OpenShift).
            assert all(context[key] > 0 for key in IDENTITIES & set(context)), where(manifest)
            assert not SHARED_WITH_THE_NODE & set(spec), where(manifest)
            assert {key for volume in spec.get("volumes", []) for key in volume} <= VOLUMES, where(manifest)
    for manifest, _, container in containers(manifests):
        assert container["securityContext"] == OF_CONTAINERS, where(manifest)
        assert not any("hostPort" in port for port in container.get("ports", [])), where(manifest)


def no_pod_holds_a_token_of_the_cluster(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if spec := pod_spec(manifest):
            assert spec["automountServiceAccountToken"] is False, where(manifest)
            for volume in spec.get("volumes", []):
                for source in volume.get("projected", {}).get("sources", []):
                    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
        # KFP's own steps in the pipeline's pods call the API; nothing else does.
        component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
        if manifest["kind"] == "ServiceAccount" and component != "pipeline":
            assert manifest["automountServiceAccountToken"] is False, where(manifest)


def resources_and_probes_are_set(manifests: list[Manifest]) -> None:
    for manifest, field, container in containers(manifests):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where(manifest)
        assert "memory" in container["resources"]["limits"], where(manifest)
        if manifest["kind"] in SERVERS and field == "containers":
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), where(manifest)


def jobs_come_to_an_end(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in SERVERS and (spec := pod_spec(manifest)):
            assert spec["restartPolicy"] == "Never", where(manifest)
            hook = manifest["metadata"].get("annotations", {}).get("helm.sh/hook-delete-policy", "")
            assert "before-hook-creation" in hook or manifest["kind"] == "CronJob", where(manifest)
        if manifest["kind"] in ("Job", "CronJob"):
            job = manifest["spec"].get("jobTemplate", manifest)["spec"]
            assert {"backoffLimit", "activeDeadlineSeconds"} <= set(job), where(manifest)


def drains_are_possible(manifests: list[Manifest]) -> None:
    """A budget that counts pods which must stay lets no node with the only one go."""
    for manifest in manifests:
        if manifest["kind"] == "PodDisruptionBudget":
            assert manifest["spec"]["maxUnavailable"] >= 1 and "minAvailable" not in manifest["spec"]


def images_have_versions(manifests: list[Manifest]) -> None:
    images = [(where(manifest), container["image"]) for manifest, _, container in containers(manifests)]
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            text = "\n".join(manifest["data"].values())
            images += [(where(manifest), image) for image in re.findall(r"(?m)^ *image: (\S+)$", text)]
    for place, image in images:
        # A pipeline's image may be one of its parameters, whose default stands beside it.
        assert IMAGE.fullmatch(image) or image.startswith("'{{"), f"{place}: {image}"


def secrets_come_by_reference(manifests: list[Manifest]) -> None:
    generated = [
        base64.b64decode(value).decode()
        for one in manifests
        if one["kind"] == "Secret"
        for key, value in one["data"].items()
        if WORDS_OF_SECRETS.search(key)
    ]
    others = repr([one for one in manifests if one["kind"] != "Secret"])
    for value in generated:
        assert value not in others
        assert base64.b64encode(value.encode()).decode() not in others
    assert not LOGIN_IN_AN_ADDRESS.search(others)
    for manifest, _, container in containers(manifests):
        for variable in container.get("env", []):
            if WORDS_OF_SECRETS.search(variable["name"]):
                assert "secretKeyRef" in variable.get("valueFrom", {}), f"{where(manifest)}: {variable}"
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            assert not any(map(WORDS_OF_SECRETS.search, manifest["data"])), where(manifest)


def permissions_are_small(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for rule in manifest.get("rules", []) if manifest["kind"] == "Role" else []:
            for resource in rule["resources"]:
                [group] = rule["apiGroups"]
                assert set(rule["verbs"]) <= PERMISSIONS.get((group, resource), set()), where(manifest)
                assert resource not in BY_NAME_ONLY or rule["resourceNames"], where(manifest)
        if manifest["kind"] == "RoleBinding":
            assert manifest["roleRef"]["kind"] == "Role", where(manifest)


def labels_are_those_that_helm_recommends(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        for known in [labels, pod_labels(manifest)] if pod_spec(manifest) else [labels]:
            assert set(known) >= LABELS, where(manifest)
            for key, value in known.items():
                shape = r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?"
                assert re.fullmatch(shape, value), f"{where(manifest)}: {key}"
        selector = manifest.get("spec", {}).get("selector", {})
        chosen = selector.get("matchLabels", {}) if isinstance(selector, dict) else {}
        # What changes with the version must not choose pods: a selector can never be changed.
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(chosen), where(manifest)


def names_fit(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        # A Service's must begin with a letter, and all share one prefix.
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), where(manifest)
        assert len(name) <= ROOM.get(manifest["kind"], 63), where(manifest)


def volumes_and_generated_secrets_survive(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Secret", "PersistentVolumeClaim"):
            assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", where(manifest)


def references(node: Any) -> Iterator[tuple[str, str, str]]:
    """Kind, name and key (or none) of what a part of a manifest refers to."""
    if isinstance(node, list):
        for one in node:
            yield from references(one)
    elif isinstance(node, dict):
        if "secretKeyRef" in node:
            yield "Secret", node["secretKeyRef"]["name"], node["secretKeyRef"]["key"]
        if isinstance(node.get("configMap"), dict):
            yield "ConfigMap", node["configMap"]["name"], ""
        if isinstance(node.get("persistentVolumeClaim"), dict):
            yield "PersistentVolumeClaim", node["persistentVolumeClaim"]["claimName"], ""
        if isinstance(node.get("serviceAccountName"), str):
            yield "ServiceAccount", node["serviceAccountName"], ""
        for one in node.values():
            yield from references(one)


def what_is_referred_to_is_there(manifests: list[Manifest]) -> None:
    there = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    # What the sets of values name as the user's own.
    given = {"keys", "login", "admin", "db", "a", "b", "corp-ca", "unio4-ceph", "unio4-rds", "runner", "more"}
    given |= {f"unio4-{name}" for name in ("store-admin", "store-pipeline", "database")}
    given |= {f"unio4-mlflow-{name}" for name in ("admin", "user")}
    for manifest in manifests:
        for kind, name, key in references(pod_spec(manifest) or {}):
            if name not in given:
                assert (kind, name) in there, f"{where(manifest)}: {kind}/{name}"
                assert not key or key in there[kind, name]["data"], f"{where(manifest)}: {name}: {key}"


def chooses(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector, of the only kind that the chart writes, takes an object with these labels."""
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def what_points_somewhere_hits(manifests: list[Manifest]) -> None:
    """Selectors find pods, routes find ports, bindings find roles and accounts."""
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    pods = [one for one in manifests if pod_spec(one)]
    for manifest in manifests:
        kind, spec, place = manifest["kind"], manifest.get("spec", {}), where(manifest)
        if kind in SERVERS:
            assert chooses(spec["selector"], pod_labels(manifest)), place
        elif kind == "Service":
            found = [one for one in pods if spec["selector"].items() <= pod_labels(one).items()]
            ports = {port["name"] for _, _, c in containers(found) for port in c.get("ports", [])}
            assert len(found) == 1 and {port["targetPort"] for port in spec["ports"]} <= ports, place
        elif kind == "PodDisruptionBudget":
            assert any(chooses(spec["selector"], pod_labels(one)) for one in pods), place
        elif kind == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in by_name, place
        elif kind == "ServiceMonitor":
            services = [one for one in manifests if one["kind"] == "Service"]
            [service] = [one for one in services if chooses(spec["selector"], one["metadata"]["labels"])]
            assert spec["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"], place
        elif kind == "HTTPRoute":
            [backend] = spec["rules"][0]["backendRefs"]
            [port] = by_name["Service", backend["name"]]["spec"]["ports"]
            assert backend["port"] == port["port"], place
        elif kind == "Ingress":
            backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
            [port] = by_name["Service", backend["name"]]["spec"]["ports"]
            assert backend["port"]["name"] == port["name"], place
        elif kind == "RoleBinding":
            assert ("Role", manifest["roleRef"]["name"]) in by_name, place
            assert all((one["kind"], one["name"]) in by_name for one in manifest["subjects"]), place


RULES: tuple[Rule, ...] = (
    kinds_are_of_a_namespace,
    pod_security_is_restricted,
    no_pod_holds_a_token_of_the_cluster,
    resources_and_probes_are_set,
    jobs_come_to_an_end,
    drains_are_possible,
    images_have_versions,
    secrets_come_by_reference,
    permissions_are_small,
    labels_are_those_that_helm_recommends,
    names_fit,
    volumes_and_generated_secrets_survive,
    what_is_referred_to_is_there,
    what_points_somewhere_hits,
)
