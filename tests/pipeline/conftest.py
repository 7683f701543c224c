"""A dataset for runs of the whole pipeline at tiny size."""

from pathlib import Path

import pytest
import tiny_runs


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where Minari has a small dataset, and the source that names it."""
    home = tmp_path_factory.mktemp("recorded")
    return home, tiny_runs.record(home)


@pytest.fixture
def dataset(recorded: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The source, findable; with a cache that nobody else has."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(recorded[0]))
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    return recorded[1]
