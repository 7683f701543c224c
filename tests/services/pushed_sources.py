"""One small dataset of each kind of source; and harm to what `unio4 dataset push` made of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import h5py
import pytest
from tiny_runs import ENVIRONMENT, record, saved_recording

from unio4_lib.sources.grammar import load_transitions

KINDS = ("minari", "d4rl", "transitions", "collect")
D4RL_FIELDS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def source_of(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """A source of this machine."""
    patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    if kind == "minari":
        return record(folder / "minari")
    if kind == "collect":
        return f"collect:{ENVIRONMENT}?level=random&steps=600&seed=3"
    recorded = saved_recording(folder)
    if kind == "transitions":
        return recorded
    rows = load_transitions(recorded)
    with h5py.File(folder / "pendulum.hdf5", "w") as file:
        for name in D4RL_FIELDS:
            file[name] = getattr(rows, name)
    return f"d4rl:{folder / 'pendulum.hdf5'}?env={ENVIRONMENT}&action_low=-3&action_high=3"


def flip_a_bit(client: Any, bucket: str) -> None:
    """In the middle of the pushed rows, by someone who may write there."""
    key = key_of_rows(client, bucket)
    content = bytearray(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    client.put_object(Bucket=bucket, Key=key, Body=bytes(content))


def lose_a_file(client: Any, bucket: str) -> None:
    client.delete_object(Bucket=bucket, Key=key_of_rows(client, bucket))


def key_of_rows(client: Any, bucket: str) -> str:
    [key] = [key for key in keys(client, bucket) if key.endswith(".safetensors")]
    return key


def keys(client: Any, bucket: str) -> list[str]:
    return [found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def client_of(uri: str, key: str, secret: str) -> Any:
    credentials = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    return boto3.client("s3", endpoint_url=uri, region_name="us-east-1", **credentials)


def forget_the_keys(client: Any, bucket: str) -> None:
    """Whoever comes now has others."""
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"  # set back by the fixture of the bucket


# What happens to what was pushed, and what the one line then says.
HARM: dict[str, tuple[Callable[[Any, str], None], str]] = {
    "a flipped bit": (flip_a_bit, "transitions.safetensors"),
    "a missing file": (lose_a_file, "transitions.safetensors"),
    "wrong keys": (forget_the_keys, "AWS_SECRET_ACCESS_KEY"),
}
