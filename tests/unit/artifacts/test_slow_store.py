"""A server of S3 that takes connections and never answers."""

import logging
import os
import socket
from collections.abc import Iterator

import pytest

from unio4_lib.artifacts import s3
from unio4_lib.artifacts.s3 import S3Settings, StoreRefused, StoreUnavailable
from unio4_lib.artifacts.s3_store import S3Store

pytest.importorskip("boto3")


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; the surroundings point there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield address


def test_nobody_waits_long_without_a_word() -> None:
    assert 0 < s3.SILENCE_SECONDS <= 10


def test_waiting_is_said_in_one_line(
    mute: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3, "SILENCE_SECONDS", 0.1)
    store = S3Store("bucket", "root", S3Settings(attempts=1, read_timeout=0.3, pause=0.0))
    with caplog.at_level(logging.WARNING, "unio4_lib"):
        for _ in range(2):  # once is enough
            with pytest.raises(StoreUnavailable, match="one attempt"):
                store.get_bytes("fingerprints/x")
    said = [record.getMessage() for record in caplog.records if record.name == "unio4_lib.artifacts.s3"]
    assert said == [
        f"s3://bucket/root/fingerprints/x: no answer from {mute} after 0 s; trying on, "
        "check AWS_ENDPOINT_URL and the network"
    ]


def test_what_answers_in_time_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3, "SILENCE_SECONDS", 0.05)
    attempts = s3.Attempts(S3Settings(), "s3://b/x", "http://elsewhere")
    assert s3.retried(lambda: 7, attempts) == 7
    monkeypatch.setattr(s3, "SILENCE_SECONDS", 5.0)
    assert s3.retried(lambda: 8, attempts) == 8
    assert caplog.records == []


def test_a_refusal_is_no_answer_from_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what does not fit together is read again."""
    asked = []

    def refuse(key: str) -> bytes:
        asked.append(key)
        raise StoreRefused("no credentials")

    store = S3Store("bucket", "root", S3Settings(pause=0.0))
    monkeypatch.setattr(store.bucket, "read", refuse)
    with pytest.raises(StoreRefused):
        store.get_bytes("x")
    assert asked == ["root/x"]
