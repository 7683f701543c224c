"""What an API server refuses beyond what its schemas say, and what a strategic merge would lose.

Written down from Kubernetes' own validation, as far as our manifests and pods use it; ``violations`` takes
any manifest and says in one line each what is wrong and where.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

Manifest = Mapping[str, Any]
Lines = Iterator[str]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
SERVICE_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d+))?")
FIELD = re.compile(
    r"metadata\.(name|namespace|uid|labels\['[^']+'\]|annotations\['[^']+'\])"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs)"
)
BINARY = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
DECIMAL = {unit: Decimal(10) ** (3 * power) for power, unit in enumerate("num kMGTPE", -3) if unit != " "}

LONGEST_LABEL, LONGEST_NAME, LONGEST_CRON_JOB, LONGEST_PORT_NAME = 63, 253, 52, 15
LARGEST_DATA, LARGEST_ANNOTATIONS = 1024 * 1024, 256 * 1024
PLAIN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
ALWAYS, ENDING = ("Always",), ("Never", "OnFailure")
RESTARTS = {
    "Deployment": ALWAYS,
    "StatefulSet": ALWAYS,
    "DaemonSet": ALWAYS,
    "Job": ENDING,
    "CronJob": ENDING,
}


def violations(manifest: Manifest) -> list[str]:
    """All that is wrong with one manifest, each as ``place: what``; nothing for a good one."""
    kind, name = manifest.get("kind", ""), manifest.get("metadata", {}).get("name", "")
    return [f"{kind} {name}: {line}" for line in _of_object(kind, manifest)]


def quantity(value: Any) -> Decimal | None:
    """A quantity as a number; None if it is none."""
    found = QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    number, binary, decimal, exponent = found.groups()
    scale = BINARY.get(binary) or DECIMAL.get(decimal) or Decimal(10) ** int(exponent or 0)
    return Decimal(number) * scale


def _of_object(kind: str, manifest: Manifest) -> Lines:
    metadata = manifest.get("metadata", {})
    yield from _name(kind, str(metadata.get("name", metadata.get("generateName", "").rstrip("-"))))
    yield from _metadata("metadata", metadata)
    spec = manifest.get("spec") or {}
    if kind in ("ConfigMap", "Secret"):
        yield from _data(manifest)
    elif kind == "Service":
        yield from _service_ports(spec.get("ports", ()))
    elif kind == "PersistentVolumeClaim":
        yield from _claim("spec", spec)
    elif kind == "Pod":
        yield from _pod("spec", spec)
    elif kind in RESTARTS:
        yield from _workload(kind, spec)


def _name(kind: str, name: str) -> Lines:
    form, longest = SUBDOMAIN, LONGEST_NAME
    if kind == "Service":
        form, longest = SERVICE_LABEL, LONGEST_LABEL
    elif kind == "CronJob":
        longest = LONGEST_CRON_JOB  # eleven characters come after it
    elif kind in ("Job", "StatefulSet", "Namespace"):
        longest = LONGEST_LABEL  # it becomes a label or a host name
    # Names of roles and their bindings may hold nearly anything.
    if (
        not name
        or len(name) > longest
        or (not kind.startswith(("Role", "ClusterRole")) and not form.fullmatch(name))
    ):
        yield f"metadata.name: {name!r} is no name of at most {longest} characters"


def _metadata(place: str, metadata: Manifest) -> Lines:
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label(f"{place}.labels", key, value)
    annotations = metadata.get("annotations") or {}
    for key, value in annotations.items():
        if not _qualified(str(key).lower()):
            yield f"{place}.annotations: {key!r} is no qualified name"
        if not isinstance(value, str):
            yield f"{place}.annotations: {key} is {value!r}, not a text"
    if sum(len(str(key)) + len(str(value)) for key, value in annotations.items()) > LARGEST_ANNOTATIONS:
        yield f"{place}.annotations: more than {LARGEST_ANNOTATIONS} bytes"


def _label(place: str, key: Any, value: Any) -> Lines:
    if not _qualified(str(key)):
        yield f"{place}: {key!r} is no qualified name"
    if not isinstance(value, str):
        yield f"{place}: {key} is {value!r}, not a text"
    elif value and not (len(value) <= LONGEST_LABEL and NAME_PART.fullmatch(value)):
        yield f"{place}: {key} is {value!r}, no value of a label"


def _qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= LONGEST_NAME and SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= LONGEST_LABEL and NAME_PART.fullmatch(name) is not None


def _data(manifest: Manifest) -> Lines:
    entries = [
        entry for name in ("data", "binaryData", "stringData") for entry in (manifest.get(name) or {}).items()
    ]
    for key, value in entries:
        if not DATA_KEY.fullmatch(str(key)) or len(str(key)) > LONGEST_NAME:
            yield f"data: {key!r} is no key"
        if not isinstance(value, str):
            yield f"data.{key}: {value!r} is not a text"
    if sum(len(str(value).encode()) for _, value in entries) > LARGEST_DATA:
        yield f"data: more than {LARGEST_DATA} bytes"


def _service_ports(ports: Any) -> Lines:
    for name in _doubles([port.get("name", "") for port in ports]):
        yield f"spec.ports: {name!r} is there twice"
    for port in ports:
        if not 0 < int(port.get("port", 0)) < 65536:
            yield f"spec.ports: {port.get('port')} is no port"
        if len(ports) > 1 and not port.get("name"):
            yield "spec.ports: one of several has no name"


def _claim(place: str, spec: Manifest) -> Lines:
    size = quantity((spec.get("resources") or {}).get("requests", {}).get("storage", ""))
    if size is None or size <= 0:
        yield f"{place}.resources.requests.storage: not a quantity above 0"
    if not spec.get("accessModes"):
        yield f"{place}.accessModes: there is none"


def _workload(kind: str, spec: Manifest) -> Lines:
    place = "spec"
    if kind == "CronJob":
        if len(str(spec.get("schedule", "")).split()) != 5 and not str(spec.get("schedule", "")).startswith(
            "@"
        ):
            yield f"spec.schedule: {spec.get('schedule')!r} has not five parts"
        spec, place = spec.get("jobTemplate", {}).get("spec", {}), "spec.jobTemplate.spec"
    template = spec.get("template", {})
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    yield from _metadata(f"{place}.template.metadata", metadata)
    labels = metadata.get("labels") or {}
    for key, value in ((spec.get("selector") or {}).get("matchLabels") or {}).items():
        if labels.get(key) != value:
            yield f"{place}.selector: {key}={value} is no label of its own pods"
    restart = pod.get("restartPolicy", "Always")
    if restart not in RESTARTS[kind]:
        yield f"{place}.template.spec.restartPolicy: {restart}; expected {' or '.join(RESTARTS[kind])}"
    if RESTARTS[kind] is ALWAYS and "activeDeadlineSeconds" in pod:
        yield f"{place}.template.spec.activeDeadlineSeconds: not for what runs for ever"
    claims = spec.get("volumeClaimTemplates") or ()
    for claim in claims:
        yield from _claim(f"{place}.volumeClaimTemplates", claim.get("spec") or {})
    yield from _pod(f"{place}.template.spec", pod, {claim["metadata"]["name"] for claim in claims})


def _pod(place: str, pod: Manifest, claimed: set[str] | frozenset[str] = frozenset()) -> Lines:
    volumes = [volume.get("name", "") for volume in pod.get("volumes") or ()]
    for name in _doubles(volumes):
        yield f"{place}.volumes: {name!r} is there twice"
    for volume in pod.get("volumes") or ():
        yield from _volume(f"{place}.volumes", volume)
    first, later = pod.get("initContainers") or (), pod.get("containers") or ()
    if not later:
        yield f"{place}.containers: there is none"
    for name in _doubles([container.get("name", "") for container in (*first, *later)]):
        yield f"{place}: container {name!r} is there twice"
    for container in (*first, *later):
        where = f"{place} container {container.get('name')}"
        yield from _container(where, container, {*volumes, *claimed})
        if container in first and container.get("restartPolicy") != "Always":
            yield from (
                f"{where}.{probe}: not for an init container" for probe in PROBES if probe in container
            )
    yield from _user(place, pod.get("securityContext") or {}, later)
    for key, value in (pod.get("nodeSelector") or {}).items():
        yield from _label(f"{place}.nodeSelector", key, value)
    for toleration in pod.get("tolerations") or ():
        yield from _toleration(f"{place}.tolerations", toleration)
    if pod.get("activeDeadlineSeconds", 1) < 1:
        yield f"{place}.activeDeadlineSeconds: must be above 0"
    account = pod.get("serviceAccountName", "x")
    if not SUBDOMAIN.fullmatch(account):
        yield f"{place}.serviceAccountName: {account!r} is no name"


def _volume(place: str, volume: Manifest) -> Lines:
    name = volume.get("name", "")
    if len(name) > LONGEST_LABEL or not LABEL.fullmatch(name):
        yield f"{place}: {name!r} is no label of at most {LONGEST_LABEL} characters"
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if len(sources) != 1:
        yield f"{place} {name}: {len(sources)} sources ({', '.join(sources)}); expected one"
    limit = (volume.get("emptyDir") or {}).get("sizeLimit")
    if limit is not None and (quantity(limit) is None or quantity(limit) < 0):  # type: ignore[operator]
        yield f"{place} {name}.emptyDir.sizeLimit: {limit!r} is no quantity"
    if "persistentVolumeClaim" in sources and not volume["persistentVolumeClaim"].get("claimName"):
        yield f"{place} {name}: claims nothing"


def _container(place: str, container: Manifest, volumes: set[str]) -> Lines:
    name = container.get("name", "")
    if len(name) > LONGEST_LABEL or not LABEL.fullmatch(name):
        yield f"{place}: {name!r} is no label of at most {LONGEST_LABEL} characters"
    image = container.get("image", "")
    if not image or image != image.strip():
        yield f"{place}.image: {image!r} is no image"
    yield from _environment(f"{place}.env", container.get("env") or ())
    for source in container.get("envFrom") or ():
        if len({"configMapRef", "secretRef"} & set(source)) != 1:
            yield f"{place}.envFrom: expected one of configMapRef, secretRef"
    yield from _mounts(f"{place}.volumeMounts", container.get("volumeMounts") or (), volumes)
    yield from _resources(f"{place}.resources", container.get("resources") or {})
    yield from _ports(f"{place}.ports", container.get("ports") or ())
    names = {port.get("name") for port in container.get("ports") or ()}
    for probe in (probe for probe in PROBES if probe in container):
        yield from _probe(f"{place}.{probe}", container[probe], names, probe != "readinessProbe")
    for moment, handler in (container.get("lifecycle") or {}).items():
        if len({*HANDLERS, "sleep"} & set(handler)) != 1:
            yield f"{place}.lifecycle.{moment}: expected one handler"
    security = container.get("securityContext") or {}
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        yield f"{place}.securityContext: privileged, and may not escalate"


def _environment(place: str, entries: Any) -> Lines:
    for name in _doubles([entry.get("name", "") for entry in entries]):
        # Not refused, but a strategic merge, which Argo makes, joins the two.
        yield f"{place}: {name} is there twice"
    for entry in entries:
        name = entry.get("name", "")
        if not VARIABLE.fullmatch(name):
            yield f"{place}: {name!r} is no name of a variable"
        value, source = entry.get("value"), entry.get("valueFrom")
        if value is not None and not isinstance(value, str):
            yield f"{place} {name}: {value!r} is not a text"
        if source is None:
            continue
        if value:
            yield f"{place} {name}.valueFrom: may not be specified when `value` is not empty"
        if len(source) != 1:
            found = ", ".join(source)
            yield f"{place} {name}.valueFrom: may not have more than one field specified at a time ({found})"
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if kind in source and not (source[kind].get("name") and source[kind].get("key")):
                yield f"{place} {name}.valueFrom.{kind}: needs name and key"
        path = (source.get("fieldRef") or {}).get("fieldPath")
        if path is not None and not FIELD.fullmatch(path):
            yield f"{place} {name}.valueFrom.fieldRef: {path} is no field of a pod"


def _mounts(place: str, mounts: Any, volumes: set[str]) -> Lines:
    for path in _doubles([mount.get("mountPath", "") for mount in mounts]):
        yield f"{place}: {path} must be unique"
    for mount in mounts:
        if mount.get("name") not in volumes:
            yield f"{place}: {mount.get('name')!r} is no volume of the pod"
        if not mount.get("mountPath") or ":" in mount["mountPath"]:
            yield f"{place}: {mount.get('mountPath')!r} is no path"
        inside = mount.get("subPath", "")
        if inside.startswith("/") or ".." in inside.split("/"):
            yield f"{place}: subPath {inside!r} must stay inside"


def _resources(place: str, resources: Manifest) -> Lines:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            if name not in PLAIN_RESOURCES and not name.startswith("hugepages-") and "/" not in name:
                yield f"{place}.{kind}: {name!r} is no resource"
            if not _qualified(name):
                yield f"{place}.{kind}: {name!r} is no qualified name"
            size = quantity(value)
            if size is None or size < 0:
                yield f"{place}.{kind}.{name}: {value!r} is no quantity of at least 0"
            elif "/" in name and size != int(size):
                yield f"{place}.{kind}.{name}: {value!r} is no whole number"
    for name, value in requests.items():
        asked, most = quantity(value), quantity(limits.get(name, ""))
        if asked is not None and most is not None and asked > most:
            yield f"{place}.requests.{name}: {value} is more than the limit {limits[name]}"
        if "/" in name and asked != most:
            yield f"{place}.requests.{name}: must equal its limit"


def _ports(place: str, ports: Any) -> Lines:
    for name in _doubles([port["name"] for port in ports if port.get("name")]):
        yield f"{place}: {name!r} is there twice"
    for port in ports:
        if not 0 < int(port.get("containerPort", 0)) < 65536:
            yield f"{place}: {port.get('containerPort')} is no port"
        name = port.get("name", "x")
        if len(name) > LONGEST_PORT_NAME or not PORT_NAME.fullmatch(name):
            yield f"{place}: {name!r} is no name of a port"


def _probe(place: str, probe: Manifest, ports: set[Any], must_succeed_once: bool) -> Lines:
    handlers = [handler for handler in HANDLERS if handler in probe]
    if len(handlers) != 1:
        yield f"{place}: {len(handlers)} handlers; expected one"
    port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port", 1)
    if isinstance(port, str) and port not in ports:
        yield f"{place}: the container has no port {port!r}"
    if must_succeed_once and probe.get("successThreshold", 1) != 1:
        yield f"{place}.successThreshold: must be 1"
    for name in ("timeoutSeconds", "periodSeconds", "failureThreshold"):
        if probe.get(name, 1) < 1:
            yield f"{place}.{name}: must be above 0"


def _user(place: str, pod: Manifest, containers: Any) -> Lines:
    """The kubelet's rule: who must not be root says who it is."""
    for container in containers:
        security = {**pod, **(container.get("securityContext") or {})}
        if security.get("runAsNonRoot") and security.get("runAsUser") == 0:
            yield f"{place} container {container.get('name')}: runs as root, and must not"


def _toleration(place: str, toleration: Manifest) -> Lines:
    key, operator = toleration.get("key", ""), toleration.get("operator") or "Equal"
    if operator not in ("Equal", "Exists"):
        yield f"{place}: operator {operator!r}; expected Equal or Exists"
    if not key and operator != "Exists":
        yield f"{place}: without a key the operator must be Exists"
    if key and not _qualified(key):
        yield f"{place}: {key!r} is no qualified name"
    if operator == "Exists" and toleration.get("value"):
        yield f"{place}: {key} has a value beside Exists"
    if (toleration.get("effect") or "") not in EFFECTS:
        yield f"{place}: effect {toleration['effect']!r}; expected one of {', '.join(EFFECTS[1:])}"
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        yield f"{place}: tolerationSeconds without NoExecute"


def _doubles(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
