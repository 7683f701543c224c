"""A dataset for runs of the whole pipeline at tiny size, and a server of KFP."""

import inspect
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_runs
from kfp_api import RecordedKfp, make_server

from unio4_lib.runs import cluster


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


@pytest.fixture(scope="session", autouse=True)
def stacks_without_source() -> Iterator[None]:
    """To know one name, KFP's compiler takes the whole stack with its source lines: seconds below pytest."""
    task = pytest.importorskip("kfp").dsl.pipeline_task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "inspect", SimpleNamespace(stack=partial(inspect.stack, 0)))
        yield


@pytest.fixture
def kfp() -> RecordedKfp:
    return RecordedKfp()


@pytest.fixture
def endpoint(kfp: RecordedKfp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The recorded KFP's address; nobody's own settings of KFP's client, and no time between looks."""
    client = pytest.importorskip("kfp").Client
    monkeypatch.setattr(client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(cluster, "FOLLOW_SECONDS", 0.0)
    server = make_server(kfp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", address)
    yield address
    server.shutdown()
    server.server_close()
