"""What the chart's scripts share: settings from the environment, waiting, S3, JSON over HTTP."""

import base64
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
log = logging.getLogger("unio4")
PAUSE_SECONDS = 3.0
FINAL = 2  # exit code after which Kubernetes does not try a job again; 1: nobody answered in time
TRY_AGAIN = (
    429,
    500,
    502,
    503,
    504,
)  # answers of a service, or of what stands before it, that is still starting


class NotReadyError(Exception):
    """A service that may answer later."""


class RefusedError(Exception):
    """What will not change by waiting: the message says what is wrong, and where."""


def setting(name: str, default: str | None = None) -> str:
    """A variable of the environment; without a default it must be there."""
    value = os.environ.get(name, default)
    if value is None:
        raise RefusedError(f"the variable {name} is not set; the chart's job sets it")
    return value


def run(main: Callable[[], None]) -> None:
    """A script: one line for each step on standard output; see :data:`FINAL` for how it ends."""
    log.addHandler(logging.StreamHandler(sys.stdout))
    log.setLevel(logging.INFO)
    try:
        main()
    except RefusedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FINAL)


def wait_for(what: str, attempt: Callable[[], Result]) -> Result:
    """Try until it works or ``TIMEOUT_SECONDS`` are over; only :class:`NotReadyError` is tried again."""
    deadline = time.monotonic() + float(setting("TIMEOUT_SECONDS", "300"))
    while True:
        try:
            return attempt()
        except NotReadyError as error:
            if time.monotonic() >= deadline:
                raise SystemExit(f"error: {what} does not answer: {error}") from error
            log.info("waiting for %s: %s", what, error)
            time.sleep(PAUSE_SECONDS)


def s3_client() -> Any:
    """A client by the standard variables; path style and no new checksums, which every S3 understands."""
    import boto3
    from botocore.config import Config

    options = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 3},
        connect_timeout=5,
        read_timeout=30,
    )
    return boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3"), config=options)


class Http:
    """A JSON service under one address."""

    def __init__(self, name: str, address: str, headers: Callable[[], dict[str, str]] = dict) -> None:
        self.name, self.address, self.headers = name, address.rstrip("/"), headers

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request; objects go and come as JSON, bytes as they are."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        return self._ask(method, path, sent, {"Content-Type": kind}, query)

    def upload(self, path: str, file: str, content: bytes, **query: str) -> Any:
        """One file as a form, which is how KFP takes pipelines."""
        border = "unio4" + base64.b16encode(os.urandom(12)).decode()
        head = f'--{border}\r\nContent-Disposition: form-data; name="uploadfile"; filename="{file}"\r\n'
        head += "Content-Type: application/x-yaml\r\n\r\n"
        sent = head.encode() + content + f"\r\n--{border}--\r\n".encode()
        return self._ask(
            "POST", path, sent, {"Content-Type": f"multipart/form-data; boundary={border}"}, query
        )

    def _ask(
        self, method: str, path: str, sent: bytes | None, headers: dict[str, str], query: dict[str, str]
    ) -> Any:
        address = self.address + path + ("?" + urllib.parse.urlencode(query) if query else "")
        request = urllib.request.Request(address, sent, headers | self.headers(), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                received, kind = answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()[:500]
            text = f"{method} {address}: {error.code} {said or error.reason}"
            raise (
                NotReadyError(text) if error.code in TRY_AGAIN else RefusedError(f"{self.name}: {text}")
            ) from error
        except OSError as error:
            raise NotReadyError(f"{method} {address}: {error}") from error
        return received if kind == "application/octet-stream" else json.loads(received or b"{}")


def basic_auth() -> dict[str, str]:
    """MLflow's standard variables as a header; nothing where they are not set."""
    return basic_auth_of(*(os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD")))


def basic_auth_of(user: str | None, password: str | None) -> dict[str, str]:
    """A name and a password as a header; nothing where one is missing."""
    if user is None or password is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def kfp_token() -> dict[str, str]:
    """The pod's token for KFP, read each time because it is renewed; nothing in a KFP of one user."""
    file = os.environ.get("KFP_TOKEN_FILE")
    return {"Authorization": f"Bearer {Path(file).read_text().strip()}"} if file else {}
