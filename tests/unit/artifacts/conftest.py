from pathlib import Path

import pytest
from made_artifacts import describe, make_folder

from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.artifacts.store import FolderStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "made")


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return describe(folder)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "root")
