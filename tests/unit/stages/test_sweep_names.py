"""What members of a sweep are called."""

import pytest

from unio4_lib.stages.sweep import Member


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("minari:mujoco/hopper/medium-v0", "seed 12 mujoco/hopper/medium-v0 w1"),
        ("s3://bucket/logs/a", "seed 12 bucket/logs/a w1"),
        ("somewhere", "seed 12 somewhere w1"),
    ],
)
def test_what_tells_members_apart_comes_first(dataset: str, name: str) -> None:
    assert Member("w1", dataset, 12).name == name
