"""The library in a few lines, for a notebook: data in, a trained and scored policy out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.data.transitions import Transitions
from unio4_lib.methods.configs import load_config
from unio4_lib.nets.files import load_policy as read_policy
from unio4_lib.nets.policy import Policy
from unio4_lib.runs.inline import run
from unio4_lib.runs.score_policy import evaluate_policy, policy_folder
from unio4_lib.sources.grammar import load_transitions


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    summary: dict[str, Any]

    @property
    def scores(self) -> dict[str, float]:
        """Mean return of every policy of the run."""
        return {name: found["mean_return"] for name, found in self.summary["scores"].items()}

    @property
    def policy(self) -> Policy:
        """The policy that the run delivers."""
        return load_policy(self.folder)


def train(
    dataset: str,
    *,
    method: str | None = None,
    preset: str = "quick",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    finetune: str = "always",
    output: str | Path = "runs",
    quiet: bool = False,
) -> Trained:
    """Run a method on a source of data, as ``unio4 run`` does, in this process.

    ``settings`` are dotted keys with values, such as ``{"improve.steps": 20}``.
    """
    given = [f"{name}={_text(value)}" for name, value in (settings or {}).items()]
    config = load_config(preset, overrides=given, dataset=dataset, seed=seed, method=method)
    console = None if quiet else Console(stderr=True)
    summary = run(config, Path(output), console, finetune=finetune)
    return Trained(Path(output) / summary["run_id"], summary)


def load_dataset(source: str) -> Transitions:
    """The checked rows of a source: minari:, d4rl:, transitions: or collect:."""
    return load_transitions(source)


def load_policy(place: str | Path) -> Policy:
    """The policy of a run, of an artifact, or of a folder of its own; ``policy.act(observations)``."""
    with policy_folder(str(place)) as folder:
        return read_policy(folder)[0]


def score(place: str | Path, episodes: int = 50, seed: int = 1_000_003) -> dict[str, Any]:
    """Whole episodes of such a policy in its environment, acting as it was delivered."""
    return evaluate_policy(str(place), episodes=episodes, seed=seed)


def _text(value: Any) -> str:
    """A value as ``--set`` reads it."""
    from unio4_lib.settings.pages import yaml_value

    return value if isinstance(value, str) else yaml_value(value)
