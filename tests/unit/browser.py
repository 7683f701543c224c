"""A headless Chromium behind the DevTools protocol: what a page logs, requests, draws and looks like."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

START_SECONDS = 120.0  # on a machine that is busy with other tests
SHOWN = "document.body.innerText.slice(0, 1500)"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab. ``complaints`` are its console errors, ``requests`` every address that it asked for."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket, self.number = socket, 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            self._note(message)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(facts["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if facts["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(facts["args"])[:500])
            case "Log.entryAdded" if facts["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}".strip())

    def open(
        self,
        page: Path | str,
        *,
        width: int,
        height: int = 900,
        scheme: str = "light",
        media: str = "screen",
    ) -> None:
        """Show a file or an address at a width, with everything that it logged and requested noted."""
        self.complaints.clear()
        self.requests.clear()
        self.resize(width, height)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait_for("document.readyState === 'complete'", f"{page} to load")

    def resize(self, width: int, height: int) -> None:
        """Show what is open at another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def wait_for(self, expression: str, what: str) -> Any:
        """The value of an expression once there is one; pages that are programs fill themselves later."""
        ends = time.monotonic() + START_SECONDS
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < ends, f"waited in vain for {what}: {self.evaluate(SHOWN)}"
            time.sleep(0.1)
        return found

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own in ``folder``, ended by its own handle."""
    assert CHROMIUM is not None
    arguments = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        "--remote-allow-origins=*",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        socket = websocket.create_connection(_address(folder), timeout=START_SECONDS)
        try:
            yield Browser(socket)
        finally:
            socket.close()
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def _address(folder: Path) -> str:
    """Where the first tab listens, once the browser has said so."""
    import urllib.request

    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        place = folder / "DevToolsActivePort"
        if place.is_file() and len(lines := place.read_text().splitlines()) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start: {(folder / 'chromium.log').read_text()[-500:]}")
