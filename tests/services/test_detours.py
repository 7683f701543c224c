"""Which way files take to MLflow's store, from inside a cluster and from outside."""

import os
from pathlib import Path

import pytest

from unio4_lib.tracking.spool import Target

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")

from unio4_lib.tracking.delivery import DETOURS, Delivery


@pytest.mark.parametrize(("inside", "expected"), [(False, "false"), (True, None)])
def test_files_take_no_detour_that_only_pods_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, expected: str | None
) -> None:
    """A server in a cluster would send large files to its S3, by a name that nobody outside can resolve."""
    for name in (*DETOURS, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.setenv(name, "10.0.0.1")
        if name in DETOURS or not inside:
            monkeypatch.delenv(name)
    Delivery("http://127.0.0.1:9", Target("http://127.0.0.1:9", "e", "r", "k"), tmp_path)
    assert {os.environ.get(name) for name in DETOURS} == {expected}
