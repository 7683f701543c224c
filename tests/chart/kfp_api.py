"""KFP's API as recorded from its published interface (kfp-server-api 2.17): no KFP runs here.

It keeps pipelines, versions, experiments, runs and recurring runs in memory and answers in the real one's
shapes, pages and filters included. What it proves is which requests are made, not that KFP would take them.
Also a program: ``python kfp_api.py PORT JOURNAL`` writes each change as a line of JSON.
"""

import json
import re
import sys
import threading
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

    def note(self, method: str, path: str, body: Any) -> None:
        self.changes.append((method, path, body))
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(json.dumps([method, path, body]) + "\n")

    def keep(self, kind: str, field: str, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.made += 1
        entry = values | {field: f"{kind}-{self.made}"}
        if kind == "runs":
            entry["state"] = "PENDING" if self.course else self.end_of_runs
        self.stored[kind].append(entry)
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
            return 200, {"multi_user": self.token is not None}
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
            return self.page(entries, "pipeline_versions", query)
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
                    return 200, entries[0]
                if entries and method == "DELETE":
                    self.stored[kind].remove(entries[0])
                    return 200, {}
        return 404, {"code": 5, "message": f"not found: {method} {path}"}


def matching(entries: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    """Entries of a namespace that a filter of KFP lets through; equality (1) is all that is asked for."""
    predicates = json.loads(query.get("filter") or "{}").get("predicates", [])
    assert all(predicate["operation"] == 1 for predicate in predicates)
    wanted = {predicate["key"]: predicate["stringValue"] for predicate in predicates}
    if predicates and query.get("namespace"):
        wanted["namespace"] = query["namespace"]
    return [one for one in entries if all(one.get(key) == value for key, value in wanted.items())]


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
