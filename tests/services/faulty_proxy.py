"""An HTTP proxy that stands before a server and does what networks and servers do on bad days."""

import http.client
import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

IMPATIENT_SECONDS = 1.0  # for clients that are to notice a stall; others have time
STALL_SECONDS = 3.0
ERRORS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "stale": (404, "NoSuchKey"),
}
EVERYTHING = ("500", "503", "reset", "truncate", "flip", "stall")


class FaultyProxy:
    """Passes requests on to ``port``; the next ones that match a plan meet its fault."""

    def __init__(self, port: int) -> None:
        self.target, self.requests, self.met = port, [], []  # type: ignore[var-annotated]
        self.plans: list[tuple[str, str, int, str]] = []  # fault, method, how often, in which paths
        self.chance, self.source, self.lock = 0.0, random.Random(0), threading.Lock()
        handler = type("BoundHandler", (Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def plan(self, fault: str, method: str, times: int = 1, path: str = "") -> None:
        with self.lock:
            self.plans.append((fault, method, times, path))

    def fault_for(self, method: str, path: str) -> str:
        with self.lock:
            self.requests.append((method, path))
            fault = ""
            for i, (planned, which, times, part) in enumerate(self.plans):
                if which == method and times and part in path:
                    self.plans[i] = (planned, which, times - 1, part)
                    fault = planned
                    break
            else:
                if self.source.random() < self.chance:
                    fault = self.source.choice(EVERYTHING)
            if fault:
                self.met.append(fault)
            return fault

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to have heard its head
    proxy: FaultyProxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # the client gave up, as it should
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.fault_for(self.command, self.path)
        if fault == "stall":
            time.sleep(STALL_SECONDS)
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self._answer(status, [("Content-Type", "application/xml")], text, len(text))
            return
        status, headers, content, length = self._forward(body)
        if fault == "flip" and content and status < 300:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        if fault in ("reset", "truncate"):
            content = content[: len(content) // 2]
            self.close_connection = True
        self._answer(status, headers, content, length)
        if fault == "reset":
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=120)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        skipped = ("content-length", "transfer-encoding", "connection")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in skipped]
        length = int(answer.getheader("Content-Length") or len(content))
        connection.close()
        return answer.status, headers, content, length

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
