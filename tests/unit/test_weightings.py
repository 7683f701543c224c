"""The names of weightings: what they mean, and one clear line for what they do not."""

import pytest
from pydantic import ValidationError

from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config
from unio4_lib.settings.model import BehaviorConfig, ExtractConfig
from unio4_lib.settings.weightings import factors, needs_critics


def test_names_are_read_factor_by_factor() -> None:
    assert factors("uniform") == []
    assert factors("return:1") == [("return", 1.0)]
    assert factors("advantage:0.25") == [("advantage", 0.25)]
    assert factors("advantage:3*return:0.5*return:2") == [
        ("advantage", 3.0),
        ("return", 0.5),
        ("return", 2.0),
    ]


@pytest.mark.parametrize(
    ("name", "needs"),
    [("uniform", False), ("return:1", False), ("advantage:1", True), ("return:1*advantage:2", True)],
)
def test_critics_are_needed_for_advantages_alone(name: str, needs: bool) -> None:
    assert needs_critics(name) is needs


BAD = [
    "", "plain", "return", "return:", "return:0", "return:0.0", "return:-1", "return:1.", "return:inf",
    "return:nan", "return:1e3", "advantage=1", "uniform*return:1", "return:1*", "*return:1", "return:1 ",
    "return:1 * advantage:1", "Return:1", "return:1\n",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_weighting_is_said_with_what_would_be_one(name: str) -> None:
    with pytest.raises(
        ValueError, match="names no weighting; expected uniform, return:T or advantage:B"
    ) as e:
        factors(name)
    assert "\n" not in str(e.value)
    with pytest.raises(ValidationError, match="names no weighting"):
        ExtractConfig(weightings=(name,))


def test_clones_cannot_ask_for_critics() -> None:
    with pytest.raises(ValidationError, match=r"behavior\.weightings has return:1\*advantage:1, which needs"):
        BehaviorConfig(weightings=("uniform", "return:1*advantage:1"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("behavior.weightings=[uniform,return:0]", "'return:0' names no weighting"),
        ("behavior.weightings=[advantage:1]", "expected it in extract.weightings"),
        ("extract.weightings=[]", "extract.weightings"),
    ],
)
def test_a_bad_setting_is_one_line(override: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        load_config("quick", dataset="none", overrides=[override])
    message = str(error.value)
    assert says in message
    assert "weightings" in message
    assert "\n" not in message


def test_members_take_the_weightings_round_and_round() -> None:
    config = BehaviorConfig(members=5, weightings=("uniform", "return:1"))
    assert config.member_weightings() == ["uniform", "return:1", "uniform", "return:1", "uniform"]
