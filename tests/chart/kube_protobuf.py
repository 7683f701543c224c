"""Secrets as Kubernetes' clients send them: in protobuf, of which a few fields are enough here."""

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"


def _number(content: bytes, start: int) -> tuple[int, int]:
    """A varint and the place after it."""
    value = shift = 0
    while True:
        byte = content[start]
        value |= (byte & 0x7F) << shift
        start, shift = start + 1, shift + 7
        if byte < 0x80:
            return value, start


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers with their bytes; plain numbers are left out."""
    place = 0
    while place < len(content):
        tag, place = _number(content, place)
        if tag & 7 == 0:
            _, place = _number(content, place)
            continue
        assert tag & 7 == 2, f"wire type {tag & 7}"
        size, place = _number(content, place)
        yield tag >> 3, content[place : place + size]
        place += size


def _entries(content: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """A map's entries: field 1 is the key, 2 the value."""
    for entry in content:
        pair = dict(_fields(entry))
        yield pair[1].decode(), pair.get(2, b"")


def read_secret(content: bytes) -> dict[str, Any]:
    """The object, as it would be in JSON."""
    assert content.startswith(MAGIC)
    raw = dict(_fields(content[len(MAGIC) :]))[2]
    fields: dict[int, list[bytes]] = {}
    for number, value in _fields(raw):
        fields.setdefault(number, []).append(value)
    meta: dict[int, list[bytes]] = {}
    for number, value in _fields(fields[1][0]):
        meta.setdefault(number, []).append(value)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": meta[1][0].decode(),
            "labels": {key: value.decode() for key, value in _entries(meta.get(11, []))},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in _entries(fields.get(2, []))},
        "type": fields[3][0].decode(),
    }
