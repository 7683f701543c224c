"""Where a dataset comes from: one line of text, ``<scheme>:<place>[?option=value&...]``."""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import BELONG_ELSEWHERE, InputError, without_user_info
from unio4_lib.files import local_path
from unio4_lib.learning.journal import Journal
from unio4_lib.sources.collect_spec import LEVELS, CollectSpec, Level

if TYPE_CHECKING:
    from unio4_lib.sources.d4rl_source import D4rlOptions

Value = TypeVar("Value")

LARGEST_COUNT, LARGEST_SEED = 10**12, 2**63 - 1  # more steps than anyone waits for; what fits 64 bits
LONGEST_NAME, LONGEST_PLACE = 255, 3000  # bytes and characters; more is too long for file systems

# What follows the colon, and the options that a scheme knows. A name that ends in a dot is a family.
SCHEMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "minari": ("<dataset id>", ("env", "clip_actions")),
    "d4rl": (
        "<file.hdf5>",
        ("env", "clip_actions", "max_episode_steps", "antmaze", "action_low", "action_high"),
    ),
    "transitions": ("<folder>", ("clip_actions",)),
    "collect": (
        "<environment id>",
        ("level", "target", "steps", "seed", "train_steps", "noise", "policy", "clip_actions", "env."),
    ),
    # Of what lies there, which stages bring to this machine first.
    "s3": (
        "//<bucket>/<prefix>",
        ("env", "clip_actions", "max_episode_steps", "antmaze", "action_low", "action_high"),
    ),
}


@dataclass(frozen=True)
class Source:
    """A parsed source; options are still text."""

    scheme: str
    place: str
    options: Mapping[str, str]


def parse_source(text: str) -> Source:
    """Split a source and check its scheme and the names of its options."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        known = ", ".join(f"{name}:{form}" for name, (form, _) in SCHEMES.items())
        raise InputError(f"dataset {_one_line(text)!r}: unknown scheme; a source is one of {known}")
    place, _, query = rest.partition("?")
    if not place.strip():
        raise InputError(
            f"dataset {_one_line(text)!r}: nothing after the colon; write {scheme}:{SCHEMES[scheme][0]}"
        )
    _check_place(scheme, unquote(place))
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        _check_option(text, scheme, name)
        if not equals or not value or name in options:
            raise InputError(
                f"dataset {_one_line(text)!r}: option {name!r} must be given once, as {name}=<value>"
            )
        options[name] = unquote(value)
    source = Source(scheme, unquote(place), options)
    if scheme == "collect":
        collect_spec(source)  # values are checked before any work starts
    return source


def load_transitions(
    text: str,
    *,
    download: bool = True,
    clip_actions: bool = False,
    progress: Callable[..., Any] | None = None,
    journal: Journal | None = None,
) -> Transitions:
    """Load, check and return what a source names.

    ``download`` lets Minari fetch a dataset that is not on this machine; ``clip_actions`` cuts actions at
    their bounds in place of refusing them; ``progress`` and ``journal`` are handed to the collector.
    """
    source = parse_source(text)
    try:
        clip = clip_actions or _read(source, "clip_actions", _boolean, False)
        # What reads a kind of source is imported when it is read: commands that only name one are light.
        if source.scheme == "minari":
            from unio4_lib.sources.minari_source import load_minari

            return load_minari(
                source.place, env_id=source.options.get("env"), clip_actions=clip, download=download
            )
        if source.scheme == "d4rl":
            from unio4_lib.sources.d4rl_source import load_d4rl

            return load_d4rl(source.place, _d4rl_options(source), clip_actions=clip)
        if source.scheme == "transitions":
            return Transitions.load(local_path(source.place), clip_actions=clip)
        if source.scheme == "collect":
            return _collect(source, clip, progress, journal)
        raise InputError(
            "lies in object storage; local_source of unio4_lib.sources.remote brings it to this machine"
        )
    except InputError as error:
        raise InputError(f"dataset {_one_line(text)}: {_one_line(str(error))}") from error


def collect_spec(source: Source) -> CollectSpec:
    """The values of a ``collect:`` source."""
    target = _read(source, "target", _finite, None)
    policy = source.options.get("policy")
    usual = "target" if target is not None else "medium" if policy is None else "policy"
    level = _read(source, "level", _level, usual)
    for name, given in (("target", target), ("policy", policy)):
        if (level == name) != (given is not None):
            raise InputError(
                f"dataset collect:{source.place}: level={level} and {name}={given}; give one of the two"
            )
    return CollectSpec(
        env_id=source.place,
        level=cast(Level, level),
        target_return=target,
        steps=_read(source, "steps", _positive, CollectSpec.steps),
        seed=_read(source, "seed", _not_negative, CollectSpec.seed),
        train_steps=_read(source, "train_steps", _positive, CollectSpec.train_steps),
        noise=_read(source, "noise", _not_negative_float, CollectSpec.noise),
        policy=policy,
        env_kwargs={
            name.removeprefix("env."): _json_or_text(value)
            for name, value in source.options.items()
            if name.startswith("env.")
        },
    )


def _collect(
    source: Source, clip: bool, progress: Callable[..., Any] | None, journal: Journal | None
) -> Transitions:
    from unio4_lib.sources.collect import collect  # trains a policy, with PyTorch and a simulator
    from unio4_lib.sources.minari_source import load_minari

    dataset_id = collect(collect_spec(source), progress, journal)
    return load_minari(dataset_id, clip_actions=clip, download=False)


def _d4rl_options(source: Source) -> "D4rlOptions":
    from unio4_lib.sources.d4rl_source import D4rlOptions

    return D4rlOptions(
        env_id=source.options.get("env"),
        max_episode_steps=_read(source, "max_episode_steps", _positive, None),
        antmaze=_read(source, "antmaze", _boolean, False),
        action_low=_read(source, "action_low", _finite, D4rlOptions.action_low),
        action_high=_read(source, "action_high", _finite, D4rlOptions.action_high),
    )


def _check_place(scheme: str, place: str) -> None:
    """No name is longer than file systems allow, and no place has credentials in it."""
    if scheme == "s3" and "@" in place.removeprefix("//").partition("/")[0]:
        raise InputError(f"dataset s3:{without_user_info('s:' + place)[2:]}: {BELONG_ELSEWHERE}")
    longest = max(len(part.encode()) for part in place.split("/"))
    if longest > LONGEST_NAME or len(place) > LONGEST_PLACE:
        raise InputError(
            f"dataset {scheme}:{_one_line(place):.40}...: {longest} bytes in one name, {len(place)} "
            f"characters in all; at most {LONGEST_NAME} and {LONGEST_PLACE}"
        )


def _check_option(text: str, scheme: str, name: str) -> None:
    known = SCHEMES[scheme][1]
    if name in known or any(family.endswith(".") and name.startswith(family) for family in known):
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"{scheme}: knows {', '.join(known) or 'no options'}"
    raise InputError(f"dataset {_one_line(text)!r}: unknown option {name!r}; {hint}")


def _read(source: Source, name: str, convert: Callable[[str], Value], default: Value) -> Value:
    text = source.options.get(name)
    if text is None:
        return default
    try:
        return convert(text)
    except ValueError as error:
        wanted = str(error) if convert.__module__ == __name__ else "must be a number"
        raise InputError(f"option {name}={text}: {wanted}") from error


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _level(text: str) -> str:
    if text not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}")
    return text


def _positive(text: str) -> int:
    return _whole(text, 1, LARGEST_COUNT, "such as 100000")


def _not_negative(text: str) -> int:
    return _whole(text, 0, LARGEST_SEED, "such as 7")


def _whole(text: str, least: int, most: int, example: str) -> int:
    # Digits are counted first: Python refuses to read thousands of them in words of its own.
    if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
        raise ValueError(f"must be a whole number from {least} to {most}, {example}")
    return int(text)


def _not_negative_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError("must be a number of at least 0")
    return value


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("must be a finite number, such as 1500")
    return value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _one_line(text: str) -> str:
    return " ".join(text.split())
