"""KFP's API as its server of 2.17 answers (backend/src/apiserver): no KFP runs here.

It keeps pipelines, versions, experiments, runs and recurring runs in memory and answers in the real one's
shapes: states, pages, filters, logs of pods, and the refusals of a KFP of many users. What it proves is which
requests are made and what comes of such answers, not that KFP would take them.
Also a program: ``python kfp_api.py PORT JOURNAL`` writes each change as a line of JSON.
"""

import json
import re
import sys
import threading
from collections.abc import Callable
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"
LISTS = {
    "pipelines": "pipelines",
    "experiments": "experiments",
    "recurringruns": "recurringRuns",
    "runs": "runs",
}
IDS = {
    "pipelines": "pipeline_id",
    "experiments": "experiment_id",
    "recurringruns": "recurring_run_id",
    "runs": "run_id",
}
PAGE = 2  # small, so that pages are turned


class RecordedKfp:
    """State and answers; ``busy`` answers are 503 first, as from a service that starts."""

    def __init__(self, journal: Path | None = None, busy: int = 0, token: str | None = None) -> None:
        self.stored: dict[str, list[dict[str, Any]]] = {name: [] for name in (*LISTS, "versions")}
        self.changes: list[tuple[str, str, Any]] = []
        self.journal, self.busy, self.token = journal, busy, token
        self.made = 0
        self.end_of_runs = "SUCCEEDED"
        # What comes of a run, one step for each time that it is asked for; None: the server is away.
        self.course: list[dict[str, Any] | None] = []
        self.login_page = ""  # answered to everything, as by a proxy that wants a browser
        self.release = "2.17.0"
        self.allowed: set[str] | None = None  # namespaces of whoever asks, in a KFP of many users
        # Of a run, as for ``course``; and what its pods have said, by the names of the pods.
        self.plan: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
        self.plans: dict[str, list[dict[str, Any]]] = {}
        self.logs: dict[str, str] = {}
        self.most_active = 0

    def note(self, method: str, path: str, body: Any) -> None:
        self.changes.append((method, path, body))
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(json.dumps([method, path, body]) + "\n")

    def keep(self, kind: str, field: str, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.made += 1
        entry = values | {field: f"{kind}-{self.made}"}
        if kind == "runs":
            entry["created_at"] = "2026-01-01T00:00:00Z"
            entry["state"] = "PENDING" if self.course or self.plan else self.end_of_runs
            if self.plan is not None:
                self.plans[entry[field]] = self.plan(entry)
        self.stored[kind].append(entry)
        active = [run for run in self.stored["runs"] if run["state"] in ("PENDING", "RUNNING")]
        self.most_active = max(self.most_active, len(active))
        return 200, entry

    def page(self, entries: list[dict[str, Any]], field: str, query: dict[str, str]) -> tuple[int, Any]:
        start = int(query.get("page_token") or 0)
        answer: dict[str, Any] = {"total_size": len(entries)}
        if shown := entries[start : start + PAGE]:
            answer[field] = shown
        if start + PAGE < len(entries):
            answer["next_page_token"] = str(start + PAGE)
        return 200, answer

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, token: str) -> tuple[int, Any]:
        if self.busy:
            self.busy -= 1
            return 503, {"error": "no healthy upstream"}
        if self.token is not None and token != f"Bearer {self.token}":
            return 401, {"error": "no", "code": 16, "message": "Unauthenticated: the token is\nnot known"}
        if self.login_page:
            return 200, self.login_page
        if path == f"{API}/healthz":
            many = self.token is not None or self.allowed is not None
            return 200, {"commit_sha": "0" * 40, "tag_name": self.release, "multi_user": many}
        if refusal := self.refusal(query, body):
            return refusal
        if method != "GET":
            self.note(method, path, body)
        if path == f"{API}/pipelines/upload_version":
            version = {
                "pipeline_id": query["pipelineid"],
                "display_name": query["name"],
                "name": query["name"],
            }
            return self.keep("versions", "pipeline_version_id", version)
        if found := re.fullmatch(f"{API}/pipelines/([^/]+)/versions", path):
            entries = [one for one in self.stored["versions"] if one["pipeline_id"] == found[1]]
            return self.page(matching(entries, query), "pipeline_versions", query)
        if found := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", path):
            # The real one has sent its 200 before it knows whether there is such a pod.
            missing = {"error_message": f"Failed to read logs from pod {found[1]}"}
            return 200, self.logs.get(found[1], json.dumps(missing))
        if found := re.fullmatch(f"{API}/runs/([^/]+):terminate", path):
            [run] = [one for one in self.stored["runs"] if one["run_id"] == found[1]]
            run["state"], self.plans[found[1]] = "CANCELED", []
            return 200, {}
        if found := re.fullmatch(f"{API}/([a-z]+)(?:/([^/]+))?", path):
            kind, identity = found[1], found[2]
            if kind in LISTS and identity is None:
                if method == "POST":
                    return self.keep(kind, IDS[kind], body)
                return self.page(matching(self.stored[kind], query), LISTS[kind], query)
            if kind in LISTS:
                entries = [one for one in self.stored[kind] if one[IDS[kind]] == identity]
                if entries and method == "GET":
                    if kind == "runs" and self.course:
                        step = self.course.pop(0)
                        if step is None:
                            return 503, {"error": "no healthy upstream"}
                        entries[0] |= step
                    if kind == "runs" and self.plans.get(identity):
                        entries[0] |= self.plans[identity].pop(0)
                    return 200, entries[0]
                if entries and method == "DELETE":
                    self.stored[kind].remove(entries[0])
                    return 200, {}
        return 404, {"code": 5, "message": f"not found: {method} {path}"}

    def refusal(self, query: dict[str, str], body: Any) -> tuple[int, Any] | None:
        """What a KFP of many users says to whoever asks for no namespace, or for somebody else's."""
        if self.allowed is None:
            return None
        named = query.get("namespace") or (body.get("namespace") if isinstance(body, dict) else None)
        if named is not None and named not in self.allowed:
            words = f"User 'me' is not authorized with reason: (request: namespace {named})"
            return 403, {"code": 7, "message": f"PermissionDenied: {words}"}
        return None


def matching(entries: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    """What a filter of KFP lets through, of the namespace or experiment; the newest first if asked."""
    tests = {1: lambda found, wanted: found == wanted, 9: lambda found, wanted: wanted in (found or "")}
    predicates = json.loads(query.get("filter") or "{}").get("predicates", [])
    found = [
        one
        for one in entries
        if all(tests[by["operation"]](one.get(by["key"]), by["stringValue"]) for by in predicates)
    ]
    if predicates and query.get("namespace"):
        found = [one for one in found if one.get("namespace") == query["namespace"]]
    if query.get("experiment_id"):
        found = [one for one in found if one.get("experiment_id") == query["experiment_id"]]
    return found[::-1] if query.get("sort_by") == "created_at desc" else found


def uploaded(headers: Any, content: bytes) -> Any:
    """The file of a form, as text; otherwise JSON."""
    kind = headers.get("Content-Type", "")
    if not kind.startswith("multipart/form-data"):
        return json.loads(content) if content.strip() else None
    whole = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
    [part] = whole.get_payload()
    assert part.get_param("name", header="content-disposition") == "uploadfile"
    return part.get_payload(decode=True).decode()


def make_server(kfp: RecordedKfp, port: int = 0) -> ThreadingHTTPServer:
    """A server on loopback, to be started by ``serve_forever``."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                body = uploaded(self.headers, content)
                token = self.headers.get("Authorization", "")
                status, answer = kfp.answer(self.command, address.path, query, body, token)
            page = isinstance(answer, str)
            sent = (answer if page else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if page else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """The journal is enough."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    make_server(RecordedKfp(Path(sys.argv[2])), int(sys.argv[1])).serve_forever()
