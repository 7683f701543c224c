"""A download that cannot work is refused in one line and in seconds, and no other is."""

import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import minari
import pytest

from unio4_lib.errors import InputError
from unio4_lib.sources import hub
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.sources.hub import unreachable_hub

Answer = Callable[..., Any]
LATE_SECONDS = 60.0  # far more than a busy machine needs


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Let the hub answer as a test says."""
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "MINARI_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    return lambda answer: monkeypatch.setattr(urllib.request, "urlopen", answer)


def fail(error: Exception) -> Answer:
    def answer(*args: Any, **kwargs: Any) -> Any:
        raise error

    return answer


NO_NAME = urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))


def test_an_unreachable_hub_is_one_line_that_says_what_to_do(
    network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    network(fail(NO_NAME))
    monkeypatch.setattr(minari, "download_dataset", None)  # is not tried
    expected = r"huggingface.co cannot be reached \(Name or service not known\); copy the .* record one"
    with pytest.raises(InputError, match=expected) as caught:
        load_transitions("minari:mujoco/hopper/medium-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("timed out"), "timed out"),
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (urllib.error.URLError("unknown url type: hub"), "unknown url type"),
    ],
)
def test_other_reasons(network: Callable[[Answer], None], error: Exception, words: str) -> None:
    network(fail(error))
    assert words in str(unreachable_hub())


def test_an_endpoint_that_is_no_address_is_named(
    network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub")
    assert unreachable_hub() == "hub cannot be reached (unknown url type: 'hub')"


def test_silence_is_cut_off(network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.1)

    heard = threading.Event()

    def answer_late(*args: Any, **kwargs: Any) -> Any:
        heard.wait(LATE_SECONDS)
        return io.BytesIO()

    network(answer_late)
    started = time.monotonic()
    assert "no answer within" in str(unreachable_hub())
    assert time.monotonic() - started < LATE_SECONDS
    heard.set()


@pytest.mark.parametrize(
    "answer",
    [
        lambda *args, **kwargs: io.BytesIO(),
        fail(urllib.error.HTTPError("https://huggingface.co", 429, "Too Many Requests", {}, None)),  # type: ignore[arg-type]
        fail(urllib.error.URLError(ssl.SSLCertVerificationError("unknown issuer"))),
    ],
)
def test_whoever_answers_is_reachable(network: Callable[[Answer], None], answer: Answer) -> None:
    network(answer)
    assert unreachable_hub() is None


@pytest.mark.parametrize(("name", "value"), [("HF_HUB_OFFLINE", "1"), ("MINARI_REMOTE", "gcp://a-bucket")])
def test_nothing_is_asked_where_it_would_prove_nothing(
    network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    network(fail(NO_NAME))
    assert unreachable_hub() is not None
    monkeypatch.setenv(name, value)
    assert unreachable_hub() is None


def test_behind_a_proxy_nothing_is_asked(
    network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    network(fail(NO_NAME))
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert unreachable_hub() is None


def test_another_endpoint_is_asked_instead(
    network: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    network(fail(NO_NAME))
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org")
    assert str(unreachable_hub()).startswith("https://mirror.example.org cannot be reached")
