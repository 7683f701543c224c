import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from unio4_lib.cli.dataset import app
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.sources.collect_spec import CollectSpec


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "TERM": "dumb"})


@pytest.fixture
def source(make_transitions: Callable[..., Transitions], tmp_path: Path) -> str:
    return f"transitions:{make_transitions((4, 1, 7, 3)).save(tmp_path / 'set')}"


def test_inspect_json_is_the_whole_output(source: str) -> None:
    result = run("inspect", source, "--json")
    facts = json.loads(result.stdout)
    data = Transitions.load(source.removeprefix("transitions:"))
    assert (facts["transitions"], facts["episodes"], facts["digest"]) == (15, 4, data.digest())
    assert facts["fields"]["actions"] == {"shape": [15, 2], "dtype": "float32"}
    assert facts["returns"]["mean"] == pytest.approx(data.episode_returns().mean())
    assert facts["normalized_mean"] == pytest.approx(data.info.normalized(data.episode_returns().mean()))
    assert facts["returns"]["quantiles"]["0.5"] == pytest.approx(np.median(data.episode_returns()))
    assert facts["lengths"]["quantiles"]["1"] == 7
    assert facts["ends"]["terminals"] == facts["ends"]["timeouts"] == 2
    assert sum(facts["returns"]["histogram"]["counts"]) == 4


def test_inspect_names_actions_at_the_bounds(
    make_arrays: Callable[..., dict[str, np.ndarray]], tmp_path: Path
) -> None:
    arrays = make_arrays((10,))
    arrays["actions"] = np.zeros((10, 2), np.float32)
    arrays["actions"][:3, 0] = -1
    arrays["actions"][:5, 1] = 0.9999
    Transitions.build(**arrays).save(tmp_path / "set")
    first, second = json.loads(run("inspect", f"transitions:{tmp_path / 'set'}", "--json").stdout)["actions"]
    assert (first["share_at_low"], first["share_at_high"], first["min"]) == (0.3, 0, -1)
    assert (second["share_at_low"], second["share_at_high"]) == (0, 0.5)
    assert second["std"] == pytest.approx(0.49995, abs=1e-4)


def test_inspect_for_people_works_without_a_terminal(source: str) -> None:
    output = run("inspect", source).stdout
    for words in (
        "15 transitions in 4 episodes",
        "normalized score",
        "2 terminals (50.0%)",
        "Episode returns",
        "###",
    ):
        assert words in output
    assert "\x1b" not in output


def test_list_is_helpful_when_there_is_nothing(minari_root: Path) -> None:
    assert f"No dataset in {minari_root}" in run("list").stdout
    assert json.loads(run("list", "--json").stdout) == []


def test_list_shows_a_broken_dataset_with_its_problem(minari_root: Path) -> None:
    folder = minari_root / "some" / "set-v0" / "data"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")
    result = run("list")
    assert "minari:some/set-v0" in result.stdout
    assert "no action_space" in result.stderr or "no observation_space" in result.stderr


def test_mistakes_reach_the_caller_as_input_errors(source: str) -> None:
    result = run("inspect", source + "x")
    assert isinstance(result.exception, InputError)
    assert "no such folder" in str(result.exception)
    assert result.stdout == ""


def test_collect_builds_the_spec_from_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CollectSpec] = []
    module = ModuleType("unio4_lib.sources.collect")

    def collect(spec: CollectSpec, progress: Callable[[str, int, int, float], None]) -> str:
        seen.append(spec)
        progress("train", 10, 100, 3.5)
        return "made/set-v0"

    module.collect = collect  # type: ignore[attr-defined]
    monkeypatch.setattr("unio4_lib.cli.dataset.LINE_SECONDS", 0.0)
    monkeypatch.setitem(sys.modules, "unio4_lib.sources.collect", module)
    result = run("collect", "Hopper-v5", "--level", "expert", "--steps", "500", "--env-kwarg", "a=1")
    assert result.stdout == "minari:made/set-v0\n"
    assert "train: 10 of 100 steps" in result.stderr
    assert seen == [CollectSpec("Hopper-v5", level="expert", steps=500, env_kwargs={"a": 1})]
    assert json.loads(run("collect", "collect:Hopper-v5?seed=2", "--json").stdout) == {
        "source": "minari:made/set-v0"
    }
    assert seen[1] == CollectSpec("Hopper-v5", seed=2)
    assert isinstance(run("collect", "Hopper-v5", "--env-kwarg", "a").exception, InputError)
