"""Fuzzed: what users write, which is settings and names of sources."""

from pathlib import Path
from random import Random

import mutators as m
from target import Target

from unio4_lib.methods.configs import resolve_config
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.settings.keys import known_keys
from unio4_lib.settings.pages import config_yaml
from unio4_lib.sources.grammar import load_transitions, parse_source

DATASET = "minari:mujoco/hopper/medium-v0"


def settings_file(_: Path) -> Target:
    whole = [config_yaml(resolve_config("quick", dataset=DATASET, method=name).config) for name in METHODS]
    little = "seed: 1\nmethod: unio4\nbehavior:\n  hidden: [64, 64]\n  weightings:\n  - uniform\n"

    def attempt(random: Random, work: Path) -> object:
        path = work / "my.yaml"
        path.write_text(random.choice([little, random.choice(whole)]))
        (m.edit_text if random.random() < 0.8 else m.edit_bytes)(random, path)
        return config_yaml(resolve_config(random.choice(("quick", "paper")), path, dataset=DATASET).config)

    return Target("settings file", attempt)


def settings_texts(_: Path) -> Target:
    keys = sorted({key for name in METHODS for key in known_keys(find_method(name).settings)})

    def attempt(random: Random, _: Path) -> object:
        texts = []
        for _ in range(random.choice((1, 2))):
            value = random.choice(
                (
                    m.json_bytes(m.odd_value(random)).decode(),
                    random.choice(m.SPLINTERS),
                    "1",
                    "[8, 8]",
                    "{a: 1}",
                )
            )
            text = f"{random.choice(keys)}={value}"
            texts.append(m.damaged_text(random, text) if random.random() < 0.5 else text)
        method = random.choice((*METHODS, None))
        return config_yaml(resolve_config("quick", overrides=texts, dataset=DATASET, method=method).config)

    return Target("--set", attempt)


def sources(_: Path) -> Target:
    whole = (
        "minari:mujoco/hopper/medium-v0?env=Hopper-v5&clip_actions=true",
        "d4rl:/data/hopper-medium.hdf5?max_episode_steps=1000&antmaze=false&action_low=-1&action_high=1",
        "transitions:/data/mine?clip_actions=false",
        "collect:Hopper-v5?level=target&target=1500&steps=1000&seed=3&train_steps=20000&noise=0.1&env.x=[1]",
        "s3://bucket/a/b?env=Hopper-v5",
    )

    def attempt(random: Random, _: Path) -> object:
        text = m.damaged_text(random, random.choice(whole))
        if text.startswith("collect:"):
            return parse_source(text)  # it would be collected
        return load_transitions(text, download=False)

    return Target("source", attempt)
