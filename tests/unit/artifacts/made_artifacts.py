"""Small real artifacts, and ways to damage them."""

import random
from pathlib import Path

from unio4_lib.artifacts.manifest import Manifest

CONFIG = "c" * 64


def make_folder(folder: Path, seed: int = 0, size: int = 3000) -> Path:
    """Files of several sizes, one in a subfolder, one empty."""
    source = random.Random(seed)
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "weights.safetensors").write_bytes(source.randbytes(size))
    (folder / "facts.json").write_bytes(source.randbytes(200))
    (folder / "empty.txt").write_bytes(b"")
    return folder


def describe(folder: Path, **values: object) -> Manifest:
    known: dict = {"kind": "policy", "stage": "improve-policy", "config_digest": CONFIG}
    known["metrics"] = {"return": 1.5}
    return Manifest.of_folder(folder, **{**known, **values})


def flip_bit(path: Path, source: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    path.write_bytes(data)
