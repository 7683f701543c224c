"""An S3 client that works with any server, and what its many failures mean."""

import importlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from unio4_lib.errors import InputError, without_user_info

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MEBIBYTE = 1 << 20
SILENCE_SECONDS = 10.0  # of a short request, before the user is told
LONGEST_PAUSE = 20.0  # seconds between two attempts

# Answers of a server that mean "not now".
TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
MISSING_CODES = frozenset({"404", "NoSuchKey", "NotFound"})
REFUSED_CODES = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
CREDENTIAL_CODES = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)
CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE"


_waited_for: set[str] = set()  # servers of which this process has told that they are slow


class StoreError(InputError):
    """A store that does not answer, or refuses to: nothing is known about what it holds."""


class StoreRefused(StoreError):  # noqa: N818 - reads as a statement of what happened
    """Credentials, rights or names are wrong, and stay so."""


class StoreUnavailable(StoreError):  # noqa: N818 - reads as a statement of what happened
    """The store did not answer as it should for as long as we tried; later it may."""


class Transient(Exception):  # noqa: N818 - a signal between two functions, never seen by a user
    """What arrived is not what was sent; another attempt may bring it."""


@dataclass(frozen=True)
class S3Settings:
    """How to talk to a store; who and where come from the standard AWS variables and files."""

    threads: int = 8
    chunk_bytes: int = 16 * MEBIBYTE
    attempts: int = 6  # without any progress in between
    pause: float = 0.5  # seconds before the second attempt; doubled before each further one
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


def make_client(settings: S3Settings) -> Any:
    """A client; thread-safe, so one for a process."""
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError as error:
        raise InputError('s3: boto3 is not installed; pip install "unio4[s3]"') from error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        # Servers other than Amazon's refuse or corrupt transfers with trailing checksums; we have our own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.threads + 2,
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        session = boto3.session.Session()
        # Servers that stand elsewhere take any region, but a request must be signed for one.
        region = session.region_name or ("us-east-1" if endpoint else None)
        return session.client("s3", config=config, region_name=region)
    except (BotoCoreError, ValueError) as error:  # unknown profile, broken file, bad URL
        raise InputError(f"s3: {_line(error)}; check the AWS variables and files") from error


def check_credentials(place: str, endpoint: str) -> None:
    """The standard AWS variables, files or the machine say who we are; right or not."""
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    try:
        if Session().get_credentials() is None:
            raise NoCredentialsError
    except BotoCoreError as error:  # half of them, or a helper that fails
        raise explain(error, place, endpoint) from error


def code_of(error: BaseException) -> str:
    """The S3 error code, or an empty text where a server did not answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_missing(error: BaseException) -> bool:
    """Whether an object (not its bucket) is not there."""
    return code_of(error) in MISSING_CODES


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may do better."""
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError

    if isinstance(error, Transient):
        return True
    if isinstance(error, botocore.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in TRANSIENT_STATUS or code_of(error) in TRANSIENT_CODES
    return isinstance(
        error,
        botocore.HTTPClientError  # reset, timed out
        | botocore.ConnectionError  # refused, unknown host
        | botocore.IncompleteReadError
        | ResponseParserError  # bytes lost or changed on the way
        | botocore.ResponseStreamingError
        | botocore.ReadTimeoutError
        | ConnectionError
        | TimeoutError,
    )


class Attempts:
    """Counts failures in a row and waits longer after each; ends with one line for a user."""

    def __init__(self, settings: S3Settings, place: str, endpoint: str) -> None:
        self.settings, self.place, self.endpoint = settings, place, endpoint
        self.failures = 0

    def progressed(self) -> None:
        """Something arrived: what went wrong before does not count any more."""
        self.failures = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt, or say why there is none."""
        error = _cause(error)
        if isinstance(error, InputError):
            raise error
        if not is_transient(error):
            raise explain(error, self.place, self.endpoint) from error
        self.failures += 1
        if self.failures >= self.settings.attempts:
            tries = f"{self.failures} attempts" if self.failures > 1 else "one attempt"
            raise _gave_up(error, self.place, self.endpoint, tries) from error
        pause = min(self.settings.pause * 2 ** (self.failures - 1), LONGEST_PAUSE)
        time.sleep(pause * random.uniform(0.5, 1.0))  # apart from others that failed with us


def retried(action: Callable[[], Result], attempts: Attempts, *, short: bool = True) -> Result:
    """The result of an action that may be repeated; what it cannot do becomes one line.

    A ``short`` one has no reason to take long: if it does, one line says whom we wait for.
    """
    with _no_silence(attempts) if short else nullcontext():
        while True:
            try:
                return action()
            except Exception as error:
                attempts.failed(error)


@contextmanager
def _no_silence(attempts: Attempts) -> Iterator[None]:
    timer = threading.Timer(SILENCE_SECONDS, _say_whom_we_wait_for, (attempts,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say_whom_we_wait_for(attempts: Attempts) -> None:
    """Once for each server: what follows is likely to wait for the same reason."""
    if attempts.endpoint not in _waited_for:
        _waited_for.add(attempts.endpoint)
        log.warning(
            "%s: no answer from %s after %.0f s; trying on, check AWS_ENDPOINT_URL and the network",
            attempts.place, attempts.endpoint, SILENCE_SECONDS,
        )  # fmt: skip


def explain(error: Exception, place: str, endpoint: str) -> Exception:
    """One line for what no further attempt will change; anything unknown stays what it is."""
    from botocore import exceptions as botocore

    code, bucket = code_of(error), place.removeprefix("s3://").split("/")[0]
    if isinstance(error, botocore.NoCredentialsError | botocore.PartialCredentialsError):
        return StoreRefused(f"{place}: no credentials ({_line(error)}); set {CREDENTIALS}")
    if code in CREDENTIAL_CODES:
        return StoreRefused(f"{place}: credentials refused by {endpoint} ({code}); check {CREDENTIALS}")
    if code in REFUSED_CODES:
        return StoreRefused(
            f"{place}: access denied by {endpoint}; check {CREDENTIALS} and the bucket's policy"
        )
    if code == "NoSuchBucket":
        return StoreRefused(f"{place}: no bucket {bucket!r} at {endpoint}; create it or correct the name")
    if code in MISSING_CODES:
        return InputError(f"{place}: missing at {endpoint}; publish or copy the artifact again")
    if isinstance(error, botocore.ClientError | botocore.BotoCoreError):
        return StoreRefused(f"{place}: {_line(error)}; check the bucket's name, its region and {endpoint}")
    return error


def _gave_up(error: Exception, place: str, endpoint: str, tries: str) -> Exception:
    from botocore import exceptions as botocore

    if isinstance(error, botocore.EndpointConnectionError | botocore.ConnectTimeoutError):
        return StoreUnavailable(
            f"{place}: {endpoint} cannot be reached after {tries}; check AWS_ENDPOINT_URL and the network"
        )
    return StoreUnavailable(
        f"{place}: {endpoint} still fails after {tries} ({_line(error)}); try again later"
    )


def _cause(error: Exception) -> Exception:
    """The answer of the server, which the transfer manager turns into a text."""
    from boto3.exceptions import Boto3Error

    inner = error.__cause__ or error.__context__
    return inner if isinstance(error, Boto3Error) and isinstance(inner, Exception) else error


def _line(error: Exception) -> str:
    return without_user_info(" ".join(str(error).split()))[:200].rstrip(".")
