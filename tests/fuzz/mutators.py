"""Seeded damage: to bytes, to texts, to JSON values and to folders of files."""

import copy
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

# Where readers stumble: limits of types, other alphabets, what looks like something else.
NUMBERS = (0, -1, 1, 255, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, 1e308, -0.0)
ODD_FLOATS = (float("nan"), float("inf"), -float("inf"))
TEXTS = (
    "",
    " ",
    "\n",
    "\0",
    "/",
    "..",
    "../../x",
    "nan",
    "1e999",
    "²",
    "٣",
    "null",
    "\ud800",
    "é" * 300,
    "a" * 5000,
)
ODD: tuple[Any, ...] = (
    *NUMBERS,
    *ODD_FLOATS,
    *TEXTS,
    None,
    True,
    False,
    [],
    {},
    [[]],
    [{}],
    [None],
    {"a": 1},
)
DEEP, DEPTH = "stands for depth", 100_000
SPLINTERS = tuple("{}[]&*!|>%@`#:,-?'\"=/\\\0\t\n\r ~<._eE+0123456789\u00b2\ufeff\u2028") + (
    "<<: *a", "!!python/object:os.system", "!!binary", "!!set", "&a [*a, *a]", "---", "...",
    "1e999", ".inf", "null", "0x7fffffffffffffff", "1_000", "2026-01-01", "yes", "?", "- ",
    "%00", "%ff", "&", "env.", "../",
    "[" * 40, "[" * 3000,
)  # fmt: skip


def damaged_bytes(random: Random, data: bytes) -> bytes:
    """One to eight small changes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        place = random.randrange(len(changed) + 1)
        match random.randrange(6):
            case 0 if place < len(changed):
                changed[place] ^= 1 << random.randrange(8)
            case 1:
                changed[place : place + 1] = bytes([random.choice((0, 1, 127, 128, 255))])
            case 2:
                changed[place : place + random.randrange(1, 16)] = b""
            case 3:
                changed[place:place] = random.randbytes(random.randrange(1, 16))
            case 4:
                wide = random.choice((2, 4, 8))
                changed[place : place + wide] = random.choice((b"\0", b"\xff", b"\x7f")) * wide
            case _ if random.random() < 0.2:
                del changed[place:]
    return bytes(changed)


def damaged_text(random: Random, text: str) -> str:
    """One to four splinters put in, and lines doubled, lost or swapped."""
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(text) + 1)
        lines = text.split("\n")
        line = random.randrange(len(lines))
        match random.randrange(5):
            case 0 | 1:
                text = text[:place] + random.choice(SPLINTERS) + text[place + random.choice((0, 0, 1, 3)) :]
            case 2:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 3:
                text = "\n".join([*lines[:line], *lines[line + 1 :]])
            case _:
                key = lines[line].partition(":")[0]
                text = "\n".join([*lines[:line], f"{key}: {random.choice(SPLINTERS)}", *lines[line + 1 :]])
    return text


def odd_value(random: Random) -> Any:
    if random.random() < 0.02:
        return DEEP
    return copy.deepcopy(random.choice(ODD))


def damaged_json(random: Random, value: Any) -> Any:
    """The value with one to three of its parts replaced, lost, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return odd_value(random)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0 | 1 | 2:
                holder[key] = odd_value(random)
            case 3:
                del holder[key]
            case 4 if isinstance(holder, dict):
                holder[random.choice(("", "x", "../x", f"{key} ", "schema_version"))] = holder.pop(key)
            case 4:
                holder.append(holder[key])
            case _:
                other, name = random.choice(places)
                holder[key] = copy.deepcopy(
                    other.get(name) if isinstance(other, dict) else other[name % len(other)]
                )
    return value


def _places(value: Any) -> Iterable[tuple[Any, Any]]:
    """Every part, with the list or object that holds it."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        keys: Iterable[Any] = ()
        if isinstance(found, dict):
            keys = list(found)
        elif isinstance(found, list):
            keys = range(min(len(found), 20))
        for key in keys:
            yield found, key
            waiting.append(found[key])


def json_bytes(value: Any) -> bytes:
    """JSON as Python writes it, NaN included; what stands for depth is deeper than any reader goes."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * DEPTH + "]" * DEPTH).encode()


def edit_json(random: Random, path: Path) -> None:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # it only has the name
        edit_bytes(random, path)
        return
    path.write_bytes(json_bytes(damaged_json(random, value)))


def edit_bytes(random: Random, path: Path) -> None:
    path.write_bytes(damaged_bytes(random, path.read_bytes()))


def edit_text(random: Random, path: Path) -> None:
    path.write_bytes(damaged_text(random, path.read_text()).encode(errors="surrogatepass"))


def edit_header(random: Random, path: Path) -> None:
    """The JSON at the head of a safetensors file, its length as it has to be."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json_bytes(damaged_json(random, json.loads(data[8:end])))
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


EDITS = {".json": edit_json, ".yaml": edit_text, ".txt": edit_text, ".jsonl": edit_text, ".sent": edit_text}


def damage_folder(random: Random, folder: Path, edits: dict[str, Callable[[Random, Path], None]]) -> None:
    """One or two files changed, each as its ending says; seldom something else stands in its place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in random.sample(files, min(len(files), random.choice((1, 1, 2)))):
        if random.random() < 0.07:
            _replace(random, path, folder)
        else:
            edits.get(path.suffix, edit_bytes)(random, path) if random.random() < 0.7 else edit_bytes(
                random, path
            )


def _replace(random: Random, path: Path, folder: Path) -> None:
    """Nothing, a folder, a pipe, a link out, an empty file or another file in the place of a file."""
    content = path.read_bytes()
    path.unlink()
    match random.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(random.choice(("/etc/hostname", "/dev/null", str(path), "/nowhere")))
        case 3:
            path.touch()
        case 4:
            others = [
                other for other in sorted(folder.rglob("*")) if other.is_file() and not other.is_symlink()
            ]
            path.write_bytes(random.choice(others).read_bytes() if others else content)
        case _:
            pass
