import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.sources import minari_source
from unio4_lib.sources.collect_spec import CollectSpec
from unio4_lib.sources.grammar import Source, collect_spec, load_transitions, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("minari:mujoco/hopper/medium-v0", Source("minari", "mujoco/hopper/medium-v0", {})),
        ("transitions:/data/a b", Source("transitions", "/data/a b", {})),
        ("d4rl:a%3Fb.hdf5?env=Hopper-v5", Source("d4rl", "a?b.hdf5", {"env": "Hopper-v5"})),
        ("s3://bucket/key", Source("s3", "//bucket/key", {})),
    ],
)
def test_grammar(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "hopper-medium-v2",
            "unknown scheme; a source is one of minari:<dataset id>, d4rl:<file.hdf5>, transit",
        ),
        ("minary:hopper", "unknown scheme"),
        ("", "unknown scheme"),
        ("minari:", "nothing after the colon; write minari:<dataset id>"),
        ("minari:a\nb?x=1", "unknown option 'x'; minari: knows env, clip_actions"),
        ("d4rl:a.hdf5?max_episode_step=5", "did you mean max_episode_steps?"),
        ("s3://a?zzz=b", "s3: knows env, clip_actions"),
        ("d4rl:a.hdf5?env=", "option 'env' must be given once, as env=<value>"),
        ("d4rl:a.hdf5?env=a&env=b", "option 'env' must be given once"),
        ("minari:a?clip_actions=yes", "option clip_actions=yes: must be true or false"),
        (
            "d4rl:a.hdf5?max_episode_steps=0",
            "option max_episode_steps=0: must be a whole number from 1 to 1000000000000",
        ),
        ("d4rl:a.hdf5?action_low=low", "option action_low=low: must be a finite number"),
        ("collect:Hopper-v5?level=best", "option level=best: must be one of random, medium, medium-replay"),
        ("collect:Hopper-v5?steps=1e5", "option steps=1e5: must be a whole number"),
        ("collect:Hopper-v5?seed=-1", "option seed=-1: must be a whole number from 0 to"),
        (f"d4rl:a.hdf5?max_episode_steps={10**20}", "must be a whole number from 1 to 1000000000000"),
        (f"collect:Hopper-v5?seed={2**63}", "must be a whole number from 0 to 9223372036854775807"),
        (f"collect:Hopper-v5?steps={'9' * 5000}", "must be a whole number from 1 to 1000000000000"),
        ("collect:Hopper-v5?noise=-1", "option noise=-1: must be a number of at least 0"),
        ("collect:Hopper-v5?level=medium&target=5", "give one of the two"),
        ("collect:Hopper-v5?level=target", "give one of the two"),
        ("s3://bucket/key", "lies in object storage"),
        ("transitions:/nowhere/at/all", "no such folder"),
        ("transitions:/no\nwhere", "no such folder"),
    ],
)
def test_mistakes_give_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_transitions(text, download=False)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_collect_spec() -> None:
    assert collect_spec(parse_source("collect:Hopper-v5")) == CollectSpec("Hopper-v5")
    text = (
        "collect:Ant-v5?level=expert&steps=5000&seed=3&train_steps=70000&noise=0.1"
        "&env.ctrl_cost_weight=0.2&env.xml_file=a.xml"
    )
    assert collect_spec(parse_source(text)) == CollectSpec(
        env_id="Ant-v5",
        level="expert",
        steps=5000,
        seed=3,
        train_steps=70000,
        noise=0.1,
        env_kwargs={"ctrl_cost_weight": 0.2, "xml_file": "a.xml"},
    )
    spec = collect_spec(parse_source("collect:Hopper-v5?target=1500"))
    assert (spec.level, spec.target_return) == ("target", 1500)


def test_collect_hands_over_and_loads_the_result(
    monkeypatch: pytest.MonkeyPatch, make_transitions: Callable[..., Transitions]
) -> None:
    seen = {}
    module = ModuleType("unio4_lib.sources.collect")

    def collect(spec: CollectSpec, progress: object, journal: object) -> str:
        seen.update(spec=spec, progress=progress, journal=journal)
        return "made/set-v0"

    module.collect = collect  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unio4_lib.sources.collect", module)
    data = make_transitions((3, 2))
    monkeypatch.setattr(
        minari_source, "load_minari", lambda name, **_: data if name == "made/set-v0" else None
    )
    assert load_transitions("collect:Hopper-v5?seed=4", progress=print) is data
    assert seen == {"spec": CollectSpec("Hopper-v5", seed=4), "progress": print, "journal": None}


def test_a_saved_folder_is_a_source(make_transitions: Callable[..., Transitions], tmp_path: Path) -> None:
    data = make_transitions((3, 2))
    data.save(tmp_path / "mine")
    assert load_transitions(f"transitions:{tmp_path / 'mine'}").digest() == data.digest()


def test_clip_actions_reaches_a_saved_folder(
    make_transitions: Callable[..., Transitions], tmp_path: Path
) -> None:
    data = make_transitions((3, 2))
    replace(data, actions=data.actions * 5).save(tmp_path / "wide")
    source = f"transitions:{tmp_path / 'wide'}"
    with pytest.raises(InputError, match="clip_actions=true"):
        load_transitions(source)
    clipped = np.clip(data.actions * 5, -1, 1)
    np.testing.assert_array_equal(load_transitions(source, clip_actions=True).actions, clipped)
    np.testing.assert_array_equal(load_transitions(f"{source}?clip_actions=true").actions, clipped)


def test_reading_needs_no_torch_and_no_simulator() -> None:
    code = (
        "import sys, unio4_lib.sources.grammar, unio4_lib.data.normalize, unio4_lib.cli.dataset;"
        "assert not {'torch', 'mujoco'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
