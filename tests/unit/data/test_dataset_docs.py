import re
from pathlib import Path

import pytest

from unio4_lib.data.checks import ROW_FIELDS
from unio4_lib.sources.grammar import SCHEMES, load_transitions, parse_source

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_example_of_own_data_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = next(body for language, body in FENCE.findall(text) if language == "python" and "build(" in body)
    exec(compile(code, "datasets.md", "exec"), {})
    data = load_transitions("transitions:data/my-robot")
    assert (data.num_episodes, data.num_transitions) == (10, 1000)


def test_examples_of_sources_are_valid(text: str) -> None:
    examples = [
        line
        for language, body in FENCE.findall(text)
        for line in body.splitlines()
        if not language and line.split(":")[0] in SCHEMES
    ]
    assert len(examples) >= 5
    for example in examples:
        parse_source(example)


def test_every_scheme_option_and_field_is_explained(text: str) -> None:
    for scheme, (_, options) in SCHEMES.items():
        assert f"`{scheme}:" in text
        for option in options:
            assert f"`{option}" in text, option
    for name in ROW_FIELDS:
        assert f"`{name}`" in text
