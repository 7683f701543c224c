"""The pods that a cluster would make of a compiled pipeline: KFP's template and patch, merged as Argo merges.

The template is what KFP 2.17's compiler for Argo makes of every task, the patch what its driver adds when the
task begins (backend/src/v2/compiler/argocompiler/container.go, backend/src/v2/driver/{driver,k8s}.go). Argo
merges them strategically; here kubectl does, with the same code of Kubernetes.
"""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from quick_yaml import documents

Values = dict[str, Any]

PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?([^']+)'\]\}\}")
SCRATCH = {"gcs": "/gcs", "s3": "/s3", "minio": "/minio", "dot-local": "/.local", "dot-cache": "/.cache"}
SCRATCH["dot-config"] = "/.config"
LAUNCHER = {"name": "kfp-launcher", "mountPath": "/kfp-launcher"}
SUFFIX = "-4294967295"  # the longest that Argo appends to the name of a pod


class Refused(Exception):  # noqa: N818 - as KFP says it
    """KFP's driver ends before there is a pod."""


def pods(path: Path, kubectl: Path, arguments: Values | None = None) -> list[Values]:
    """One pod for each executor of a compiled pipeline."""
    spec, platform = documents(path.read_text())
    declared = spec["root"]["inputDefinitions"]["parameters"]
    given = {name: one["defaultValue"] for name, one in declared.items() if "defaultValue" in one}
    given |= arguments or {}
    retried = _retried(spec)
    extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    made = []
    for name, executor in spec["deploymentSpec"]["executors"].items():
        base = _template(spec["pipelineInfo"]["name"], retried=name in retried)
        patch = driver_patch(executor["container"], extras[name], given)
        made.append(base | {"spec": _merged(json.dumps(base["spec"]), json.dumps(patch), kubectl)})
    return made


def driver_patch(container: Values, extra: Values, given: Values) -> Values:
    """What KFP's driver adds to the template; ``given`` are the parameters of the pipeline."""
    main: Values = {"name": "main", "image": resolved(container["image"], given)}
    main["command"], main["args"] = ["/kfp-launcher/launch", "--"], container["command"]
    main["env"] = [dict(entry) for entry in container.get("env", ())]
    main["resources"] = _resources(container.get("resources", {}), given)
    main["volumeMounts"], volumes = [], []
    _add_volumes(extra, given, main["volumeMounts"], volumes)
    for source, kind, reference in (
        ("secretAsEnv", "secret", "secretKeyRef"),
        ("configMapAsEnv", "configMap", "configMapKeyRef"),
    ):
        for one in extra.get(source, ()):
            selector = {"name": told(one[f"{kind}NameParameter"], given), "optional": one.get("optional")}
            for pair in one["keyToEnv"]:
                chosen = {**selector, "key": pair[f"{kind}Key"]}
                main["env"].append({"name": pair["envVar"], "valueFrom": {reference: chosen}})
    for one in extra.get("fieldPathAsEnv", ()):
        field = {"fieldRef": {"fieldPath": one["fieldPath"]}}
        main["env"].append({"name": one["name"], "valueFrom": field})
    security = extra.get("securityContext", {})
    main["securityContext"] = {
        name: int(value) if name.startswith("runAs") and name != "runAsNonRoot" else value
        for name, value in security.items()
    } | {"capabilities": {"drop": ["ALL"]}}
    pod: Values = {"containers": [main], "volumes": volumes}
    if deadline := int(extra.get("activeDeadlineSeconds", 0)):
        pod["activeDeadlineSeconds"] = deadline
    if selector := extra.get("nodeSelector"):
        own = selector.get("labels", {})
        pod["nodeSelector"] = (
            told(selector["nodeSelectorJson"], given) if "nodeSelectorJson" in selector else own
        )
    for one in extra.get("tolerations", ()):
        found = told(one["tolerationJson"], given) if "tolerationJson" in one else one
        pod.setdefault("tolerations", []).extend(found if isinstance(found, list) else [found])
    return pod


def _add_volumes(extra: Values, given: Values, mounts: list[Values], volumes: list[Values]) -> None:
    def add(name: str, path: str, **source: Any) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path})

    for one in extra.get("pvcMount", ()):
        if not (claim := told(one["pvcNameParameter"], given)):
            raise Refused("resolving input parameter with spec: Expected a non-empty string")
        add(claim, one["mountPath"], persistentVolumeClaim={"claimName": claim})
    for one in extra.get("secretAsVolume", ()):
        name = told(one["secretNameParameter"], given)
        add(name, one["mountPath"], secret={"secretName": name, "optional": one.get("optional", False)})
    for one in extra.get("configMapAsVolume", ()):
        name = told(one["configMapNameParameter"], given)
        add(name, one["mountPath"], configMap={"name": name, "optional": one.get("optional", False)})
    for one in extra.get("genericEphemeralVolume", ()):
        claim = {"accessModes": one["accessModes"], "storageClassName": one.get("storageClassName")}
        claim["resources"] = {"requests": {"storage": one["size"]}}
        add(one["volumeName"], one["mountPath"], ephemeral={"volumeClaimTemplate": {"spec": claim}})
    for one in extra.get("emptyDirMounts", ()):
        add(one["volumeName"], one["mountPath"], emptyDir={"sizeLimit": one.get("sizeLimit")})


def _resources(wanted: Values, given: Values) -> Values:
    found: Values = {"limits": {}, "requests": {}}
    for bound, name in (("limits", "Limit"), ("requests", "Request")):
        for resource in ("cpu", "memory"):
            value = resolved(wanted.get(f"resource{resource.capitalize()}{name}", ""), given)
            if value:
                found[bound][resource] = value
    accelerator = wanted.get("accelerator", {})
    kind = resolved(accelerator.get("resourceType", ""), given)
    count = resolved(accelerator.get("resourceCount", ""), given)
    if kind and count:
        found["limits"][kind] = count
    return found


def resolved(text: str, given: Values) -> str:
    """A text of the pod's specification; what a parameter has that is no text counts as empty, as in 2.17."""
    found = PARAMETER.fullmatch(text)
    if found is None:
        return text
    value = given[found[1]]
    return value if isinstance(value, str) else ""


def told(parameter: Values, given: Values) -> Any:
    """The value behind a parameter of the Kubernetes extension."""
    if "runtimeValue" in parameter:
        return parameter["runtimeValue"]["constant"]
    return given[parameter["componentInputParameter"].removeprefix("pipelinechannel--")]


def _retried(spec: Values) -> set[str]:
    """Executors of tasks with retries: their pods come from a template of another name."""
    components = spec["components"]
    graphs = [one["dag"]["tasks"] for one in (spec["root"], *components.values()) if "dag" in one]
    tasks = [task for tasks in graphs for task in tasks.values() if "retryPolicy" in task]
    return {components[task["componentRef"]["name"]].get("executorLabel", "") for task in tasks}


def _template(pipeline: str, *, retried: bool) -> Values:
    """The pod of KFP's template before its patch, as Argo begins it."""
    workflow = f"{pipeline}-x7k2p"
    template = f"{'retry-' if retried else ''}system-container-impl"
    mounts = [{"name": f"{name}-scratch", "mountPath": path} for name, path in SCRATCH.items()]
    hardened = {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}}
    fields = {"KFP_POD_NAME": "metadata.name", "KFP_POD_UID": "metadata.uid"}
    env: list[Values] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]
    if retried:
        env.append({"name": "KFP_RETRY_INDEX", "value": "0"})
    main = {"name": "main", "image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime"}
    shared = {"envFrom": [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}]}
    shared |= {"volumeMounts": [LAUNCHER, *mounts], "securityContext": hardened, "env": env}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{workflow}-{template}{SUFFIX}",
            "namespace": "team",
            "labels": {"workflows.argoproj.io/workflow": workflow, "pipeline/runid": "0" * 36},
        },
        "spec": {
            "serviceAccountName": "pipeline-runner",
            "restartPolicy": "Never",
            "volumes": [
                {"name": name, "emptyDir": {}}
                for name in ("kfp-launcher", *(mount["name"] for mount in mounts), "var-run-argo")
            ],
            "initContainers": [
                {"name": "init", "image": "quay.io/argoproj/argoexec:v4.0.5"},
                {"name": "kfp-launcher", "image": "kfp-launcher:2.17.0", "volumeMounts": [LAUNCHER]},
            ],
            "containers": [{"name": "wait", "image": "quay.io/argoproj/argoexec:v4.0.5"}, {**main, **shared}],
        },
    }  # fmt: skip


@cache
def _merged(base: str, patch: str, kubectl: Path) -> Values:
    """Specifications of a pod, merged; kubectl is asked once for what many pipelines have in common."""
    pod = f'{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "a"}}, "spec": {base}}}'
    line = [str(kubectl), "patch", "--local", "-f", "-", "--type", "strategic", "-o", "json"]
    done = subprocess.run(
        [*line, "-p", f'{{"spec": {patch}}}'], input=pod, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Values = json.loads(done.stdout)["spec"]
    return found
