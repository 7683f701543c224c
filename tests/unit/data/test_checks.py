from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unio4_lib.data import checks
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError

LENGTHS = (4, 1, 7, 3)
Change = Callable[[dict[str, Any]], None]


def put(name: str, place: Any, value: Any) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][place] = value

    return change


def convert(name: str, function: Callable[[Any], Any]) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = function(arrays[name])

    return change


def info(**changes: Any) -> Change:
    return convert("info", lambda value: replace(value, **changes))


def empty(arrays: dict[str, Any]) -> None:
    for name in checks.ROW_FIELDS:
        arrays[name] = arrays[name][:0]


BAD: dict[str, tuple[Change, str]] = {
    "NaN in observations": (put("observations", (6, 2), np.nan), "observations: row 6, dimension 2 is nan"),
    "infinite reward": (put("rewards", 3, np.inf), "rewards: row 3 is inf"),
    "NaN in the last s'": (
        put("next_observations", (14, 0), np.nan),
        "next_observations: row 14, dimension 0",
    ),
    "NaN action": (put("actions", (2, 1), np.nan), "actions: row 2, dimension 1 is nan"),
    "action above": (
        put("actions", (5, 1), 1.001),
        r"actions: row 5, dimension 1 is 1.001, must be within \[-1, 1\]",
    ),
    "action below": (put("actions", (0, 0), -2), r"actions: row 0, dimension 0 is -2"),
    "one reward less": (convert("rewards", lambda a: a[:-1]), "rewards: 14 rows, but observations has 15"),
    "one mark less": (
        convert("timeouts", lambda a: a[:-1]),
        r"timeouts: shape \[14\], but terminals has \[15\]",
    ),
    "float64": (convert("rewards", lambda a: a.astype(float)), "rewards: dtype float64, must be float32"),
    "marks of numbers": (
        convert("terminals", lambda a: a.astype(np.int8)),
        "terminals: dtype int8, must be bool",
    ),
    "flat observations": (
        convert("observations", lambda a: a[:, 0]),
        r"observations: shape \[15\], must be \[rows, d",
    ),
    "column of rewards": (
        convert("rewards", lambda a: a[:, None]),
        r"rewards: shape \[15, 1\], must be \[rows\]",
    ),
    "narrow s'": (
        convert("next_observations", lambda a: a[:, :2]),
        "next_observations: 2 dimensions, but obs.* 3",
    ),
    "narrow actions": (
        convert("actions", lambda a: a[:, :1]),
        "actions: 1 dimensions, but the action bounds have 2",
    ),
    "a list": (convert("rewards", list), "rewards: found list, must be a numpy array"),
    "no rows": (empty, "no rows"),
    "jump inside": (
        put("next_observations", (7, 1), 9),
        "next_observations: row 7, dimension 1 is 9, .*row 8",
    ),
    "both marks": (put("timeouts", 3, True), "row 3 has both"),
    "no mark at the end": (put("terminals", 11, False), "row 14, the last of episode 2, has neither"),
    "bounds not finite": (info(action_high=(1.0, np.inf)), "dimension 1 are -1 and inf"),
    "bounds beyond float32": (info(action_high=(1.0, 1e39)), "dimension 1 are -1 and 1e.39; both"),
    "bounds too far apart": (info(action_low=(-3e38, -1), action_high=(3e38, 1)), "0 are -3e.38 and 3e.38;"),
    "bounds too close": (info(action_low=(1.0 - 1e-12, -1), action_high=(1, 1)), "dimension 0 are 1 and 1;"),
    "bounds swapped": (info(action_low=(2.0, -1.0)), "dimension 0 are 2 and 1"),
    "bounds unequal": (info(action_low=(-1.0,)), "action_low has 1 values and action_high 2"),
    "no environment": (info(env_id=""), "env_id is empty"),
    "score NaN": (info(ref_min_score=float("nan")), "plain JSON"),
    "scores swapped": (info(ref_min_score=4.0), "ref_min_score 4 must be smaller than ref_max_score 3"),
    "info no JSON": (info(extra={"a": np.zeros(2)}), "plain JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named_in_one_line(kind: str, make_arrays: Callable[..., Any]) -> None:
    change, words = BAD[kind]
    arrays = make_arrays(LENGTHS)
    change(arrays)
    if kind == "no mark at the end":
        # Without its mark the episode runs into the next one, which a timeout ends: give the offsets too.
        arrays["timeouts"][14] = False
        arrays["episode_offsets"] = np.array([0, 4, 5, 15])
    with pytest.raises(InputError, match=words) as caught:
        Transitions.build(**arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 4, 12, 15], "timeouts: row 4 is marked, but episode 1 goes on to row 11"),
        ([0, 5, 12, 15], "terminals: row 3 is marked, but episode 0 goes on to row 4"),
        ([0, 4, 5, 9, 12, 15], "row 8, the last of episode 2, has neither"),
        ([0, 4, 5, 5, 12, 15], "episode 2 has 0 rows"),
        ([0, 4, 5, 12], "run from 0 to 12, must run from 0 to the 15 rows"),
        ([0], "episode_offsets: int64 of shape"),
    ],
)
def test_offsets_that_do_not_fit_the_marks(
    offsets: list[int], words: str, make_arrays: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=words):
        Transitions.build(**make_arrays(LENGTHS), episode_offsets=np.array(offsets))


def test_good_input_passes_and_rounding_is_forgiven(make_arrays: Callable[..., Any]) -> None:
    arrays = make_arrays(LENGTHS)
    arrays["actions"][3, 0] = np.float32(1.000005)
    arrays["next_observations"][7] = np.nextafter(arrays["next_observations"][7], np.float32(9))
    assert Transitions.build(**arrays).num_episodes == 4


def test_clip_actions_cuts_and_leaves_the_rest(make_arrays: Callable[..., Any]) -> None:
    arrays = make_arrays(LENGTHS)
    arrays["actions"][5] = (7, -7)
    expected = arrays["actions"].copy()
    expected[5] = (1, -1)
    np.testing.assert_array_equal(Transitions.build(**arrays, clip_actions=True).actions, expected)
    assert arrays["actions"][5, 0] == 7


@pytest.mark.parametrize("row", [0, 8, 9, 10, 29])
def test_the_row_is_right_in_every_block(
    row: int, make_arrays: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "BLOCK_ROWS", 9)
    arrays = make_arrays((30, 10))
    arrays["rewards"][row] = np.nan
    with pytest.raises(InputError, match=f"rewards: row {row} "):
        Transitions.build(**arrays)
    arrays = make_arrays((31, 10))
    arrays["next_observations"][row, 2] = 50
    with pytest.raises(InputError, match=f"row {row}, dimension 2"):
        Transitions.build(**arrays)
