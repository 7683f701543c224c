"""A Kubernetes API in memory, enough for Helm to install, upgrade, test and uninstall a release for real.

Objects are checked against Kubernetes' own schemas, changes of fields that a real cluster never lets change
are refused, and jobs and pods end at once. There are no controllers, no admission and no scheduler: nothing
runs.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kube_protobuf import MAGIC, read_secret
from rendered_chart import check_schema

VERSION = "1.33"
Object = dict[str, Any]
# Group and version, and its namespaced kinds; those of operators are there as where they are installed.
KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Namespace": "namespaces",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"},
    "batch/v1": {"Job": "jobs", "CronJob": "cronjobs"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "monitoring.coreos.com/v1": {"ServiceMonitor": "servicemonitors"},
}
# What a cluster refuses to change, as paths in the object; a claim may only ask for more.
FIXED = {
    "Deployment": [("spec", "selector")],
    "StatefulSet": [("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")],
    "Job": [("spec", "selector"), ("spec", "template")],
    "PersistentVolumeClaim": [("spec", "accessModes"), ("spec", "storageClassName"), ("spec", "volumeName")],
    "RoleBinding": [("roleRef",)],
    "Secret": [("type",)],
}
WATCH_SECONDS = 20
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class RefusedError(Exception):
    """A status that is no success, with its reason."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }


def at(node: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node


def in_bytes(size: str) -> int:
    found = re.fullmatch(r"(\d+)(\w\w)", size)
    assert found is not None, size
    return int(found[1]) * SIZES[found[2]]


def merged(old: Any, patch: Any) -> Any:
    """A merge patch."""
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def finished(kind: str, spec: Object) -> Object:
    """The status that controllers would have given, had they run."""
    if kind in ("Deployment", "StatefulSet"):
        counts = ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas", "currentReplicas")
        status = {count: spec.get("replicas", 1) for count in counts} | {"observedGeneration": 1}
        available = [{"type": "Available", "status": "True"}] if kind == "Deployment" else []
        return status | {"conditions": available, "currentRevision": "1", "updateRevision": "1"}
    if kind == "Job":
        return {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    if kind == "Pod":
        return {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True"}]}
    return {"phase": "Bound"} if kind == "PersistentVolumeClaim" else {}


def read_body(content: bytes) -> Any:
    """JSON, YAML, or the protobuf in which Helm sends the record of a release."""
    if content.startswith(MAGIC):
        return read_secret(content)
    if content.startswith(b"{"):  # YAML, too, but as such it takes a hundred times as long
        return json.loads(content)
    return yaml.safe_load(content) if content else None


class KubeApi:
    """Objects by group and version, namespace, kind and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.history: list[tuple[str, str, str]] = []  # verb, kind, name
        self.events: list[tuple[str, tuple[str, str, str, str], Object]] = []  # for those who watch
        self.logs: dict[str, str] = {}
        self.version = 0
        self.lock = threading.Lock()
        self.server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def kubeconfig(self) -> str:
        """A configuration for clients."""
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "memory", "cluster": {"server": self.address}}],
                "users": [{"name": "memory", "user": {"token": "none"}}],
                "contexts": [{"name": "memory", "context": {"cluster": "memory", "user": "memory"}}],
                "current-context": "memory",
            }
        )

    def found(self, kind: str, namespace: str = "team") -> dict[str, Object]:
        """All objects of a kind, by name."""
        return {key[3]: one for key, one in self.objects.items() if key[1] == namespace and key[2] == kind}

    # --- What the API does -----------------------------------------------

    def create(self, group: str, namespace: str, kind: str, wanted: Object) -> Object:
        key = (group, namespace, kind, wanted["metadata"]["name"])
        if key in self.objects:
            raise RefusedError(409, "AlreadyExists", f"{kind} {key[3]!r} already exists")
        self.check(wanted)
        made = copy.deepcopy(wanted)
        made["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1}
        made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        if status := finished(kind, made.get("spec", {})):
            made["status"] = status
        return self.keep("create", key, made)

    def replace(self, key: tuple[str, str, str, str], wanted: Object) -> Object:
        old = self.objects[key]
        self.check(wanted)
        for path in FIXED.get(key[2], []):
            if at(wanted, path) is not None and at(old, path) != at(wanted, path):
                raise RefusedError(
                    422, "Invalid", f"{key[2]} {key[3]!r}: {'.'.join(path)}: field is immutable"
                )
        size = ("spec", "resources", "requests", "storage")
        if key[2] == "PersistentVolumeClaim" and in_bytes(at(wanted, size)) < in_bytes(at(old, size)):
            raise RefusedError(422, "Invalid", f"claim {key[3]!r}: a volume cannot become smaller")
        new = copy.deepcopy(wanted)
        for field in ("uid", "creationTimestamp", "namespace", "generation"):
            new["metadata"][field] = old["metadata"][field]
        new["status"] = finished(key[2], new.get("spec", {}))
        return self.keep("update", key, new)

    def keep(self, verb: str, key: tuple[str, str, str, str], made: Object) -> Object:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = made
        self.history.append((verb, key[2], key[3]))
        self.events.append(("ADDED" if verb == "create" else "MODIFIED", key, made))
        return made

    def check(self, wanted: Object) -> None:
        import jsonschema
        import kubernetes_validate

        bare = {field: value for field, value in wanted.items() if field != "status"}
        try:
            check_schema(bare, VERSION)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            raise RefusedError(422, "Invalid", f"{wanted['kind']}: {error.message}") from error

    # --- Requests ----------------------------------------------------------

    def discover(self, path: str) -> Object | None:
        if path == "/version":
            major, minor = VERSION.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [group.split("/") for group in KINDS if "/" in group]
            listed = [
                {"name": name, "versions": [version], "preferredVersion": version}
                for name, number in groups
                for version in [{"groupVersion": f"{name}/{number}", "version": number}]
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if path == "/openapi/v3":
            prefixes = [("apis/" if "/" in group else "api/") + group for group in KINDS]
            return {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}"} for one in prefixes}}
        group = re.sub("^(/openapi/v3)?/apis?/", "", path)
        if group in KINDS and path.startswith("/openapi/v3"):
            return self.openapi(group)
        if group not in KINDS:
            return None
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        kinds = [
            {
                "name": plural,
                "singularName": "",
                "namespaced": kind != "Namespace",
                "kind": kind,
                "verbs": verbs,
            }
            for kind, plural in KINDS[group].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": kinds}

    @staticmethod
    def openapi(group: str) -> Object:
        """Only what tells clients that this side checks fields, so that they need not."""
        prefix = ("/apis/" if "/" in group else "/api/") + group
        name, _, version = group.rpartition("/")
        paths = {
            f"{prefix}/namespaces/{{namespace}}/{plural}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {"group": name, "version": version, "kind": kind},
                }
            }
            for kind, plural in KINDS[group].items()
        }
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": paths}

    def address_of(self, path: str) -> tuple[str, str, str, str]:
        """Group, namespace, kind and name ('' for a list) of a path."""
        for group, kinds in KINDS.items():
            prefix = ("/apis/" if "/" in group else "/api/") + group
            for kind, plural in kinds.items():
                for pattern in (
                    rf"{prefix}/namespaces/([^/]+)/{plural}(?:/([^/]+))?",
                    rf"{prefix}/()({plural})",
                ):
                    if found := re.fullmatch(pattern, path):
                        return group, found[1], kind, (found[2] or "") if found[1] else ""
                if kind == "Namespace" and (
                    found := re.fullmatch(rf"{prefix}/namespaces(?:/([^/]+))?", path)
                ):
                    return group, "", kind, found[1] or ""
        raise RefusedError(404, "NotFound", f"the server could not find the requested resource: {path}")

    def answer(self, method: str, path: str, query: dict[str, str], kind_of_body: str, body: Any) -> Object:
        if method == "GET" and (known := self.discover(path)) is not None:
            return known
        group, namespace, kind, name = self.address_of(path)
        key = (group, namespace, kind, name)
        if not name:
            if method == "POST":
                return self.create(group, namespace, kind, body)
            return self.listed(group, namespace, kind, query)
        if method == "PATCH" and "apply-patch" in kind_of_body and key not in self.objects:
            return self.create(group, namespace, kind, body)
        if key not in self.objects:
            raise RefusedError(404, "NotFound", f'{KINDS[group][kind]} "{name}" not found')
        if method == "DELETE":
            self.history.append(("delete", kind, name))
            self.events.append(("DELETED", key, self.objects[key]))
            return self.objects.pop(key)
        if method == "PUT" or (method == "PATCH" and "apply-patch" in kind_of_body):
            return self.replace(key, body)
        if method == "PATCH":
            return self.replace(key, merged(self.objects[key], body))
        return self.objects[key]

    def listed(self, group: str, namespace: str, kind: str, query: dict[str, str]) -> Object:
        labels = dict(one.split("=", 1) for one in query.get("labelSelector", "").split(",") if "=" in one)
        labels = {key.rstrip("="): value.lstrip("=") for key, value in labels.items()}
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            one
            for key, one in self.objects.items()
            if key[0] == group and key[2] == kind and namespace in ("", key[1]) and name in ("", key[3])
            if labels.items() <= one["metadata"].get("labels", {}).items()
        ]
        head = {
            "kind": f"{kind}List",
            "apiVersion": group,
            "metadata": {"resourceVersion": str(self.version)},
        }
        return head | {"items": [{"kind": kind, "apiVersion": group} | one for one in items]}

    def watched(self, path: str, query: dict[str, str]) -> Iterator[Object]:
        """Events of a watch: for a while only, after which clients watch again."""
        group, namespace, kind, _ = self.address_of(path)
        with self.lock:
            seen, items = len(self.events), self.listed(group, namespace, kind, query)["items"]
        yield from ({"type": "ADDED", "object": one} for one in items)
        if query.get("sendInitialEvents") == "true":
            mark = {"resourceVersion": str(self.version), "annotations": {INITIAL_EVENTS_END: "true"}}
            yield {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": group, "metadata": mark}}
        until = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < until:
            time.sleep(0.05)
            for what, key, one in self.events[seen:]:
                seen += 1
                if (key[0], key[2]) == (group, kind) and namespace in ("", key[1]):
                    yield {"type": what, "object": {"kind": kind, "apiVersion": group} | one}

    # --- HTTP -----------------------------------------------------------------

    def start(self) -> None:
        """Serve on a free port of loopback, in the background."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to have heard its head

            def respond(self) -> None:
                address = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = self.headers.get("Content-Type", "")
                if address.path.endswith("/log"):
                    return self.send(
                        200, api.logs.get(address.path.split("/")[-2], "").encode(), "text/plain"
                    )
                if query.get("watch") in ("true", "1"):
                    return self.watch(address.path, query)
                try:
                    body = read_body(content) if self.command != "DELETE" else None
                    with api.lock:
                        answer = api.answer(self.command, address.path, query, kind, body)
                        sent, code = json.dumps(answer), 200
                except RefusedError as error:
                    sent, code = json.dumps(error.status), error.status["code"]
                return self.send(code, sent.encode(), "application/json")

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

            def send(self, code: int, content: bytes, kind: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def watch(self, path: str, query: dict[str, str]) -> None:
                """What is there and what changes, until the client has heard enough."""
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                for event in api.watched(path, query):
                    try:
                        self.wfile.write(json.dumps(event).encode() + b"\n")
                        self.wfile.flush()
                    except OSError:
                        return

            def log_message(self, format: str, *args: Any) -> None:
                """The history is enough."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()
