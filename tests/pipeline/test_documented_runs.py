"""What documentation and `helm install` print for Kubeflow Pipelines, done: each command starts its runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from chart_values import GOOD
from kfp_api import RecordedKfp
from kfp_steps import NODE
from test_cluster_sweep import TABLE, ends_well
from test_docs import commands
from test_submit import register
from tiny_runs import call

from unio4_lib.runs.spec import compiled

ROOT = Path(__file__).parents[2]
LOGS = {f"unio4-x7k2p-system-container-impl-{NODE[-1]}": f"{TABLE}\n"}
DOCUMENTED = [
    ["0-1" if word in ("0-4", "0-99") else word for word in words[1:]]  # many members are another test's
    for words in commands("unio4", mentioned=False)
    if words[1] == "submit" or (words[1] == "sweep" and "kfp" in words)
]


@pytest.fixture
def cluster(kfp: RecordedKfp, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedKfp:
    """A server whose runs end well, and the file that the pages compile."""
    kfp.plan, kfp.logs = ends_well, LOGS
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-pipelines").mkdir()
    shutil.copy(compiled("unio4"), tmp_path / "my-pipelines")
    return kfp


def value(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


def done(words: list[str], cluster: RecordedKfp, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The runs that a command has started."""
    if (name := value(words, "--registered")) is not None:
        register(cluster, name)
    code, _, err = call(capsys, *words)
    assert code == 0, err
    return cluster.stored["runs"]


def test_there_are_commands() -> None:
    assert len(DOCUMENTED) >= 9


@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
def test_documented(words: list[str], cluster: RecordedKfp, capsys: pytest.CaptureFixture[str]) -> None:
    runs = done(words, cluster, capsys)
    if "--cancel" in words:
        assert runs == []
        return
    datasets = {run["runtime_config"]["parameters"].get("dataset") for run in runs}
    assert value(words, "--dataset") in datasets
    assert {run.get("service_account") or None for run in runs} == {value(words, "--service-account")}
    assert {run["state"] for run in runs} <= {"SUCCEEDED"} or "--wait" not in words


@pytest.mark.parametrize("name", ["defaults", "team-aws", "no kfp", "profile with roles"])
def test_printed_by_helm(name: str, cluster: RecordedKfp, capsys: pytest.CaptureFixture[str]) -> None:
    """One of each kind; that all are understood is seen in tests/chart."""
    pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
    from test_chart_notes import commands as printed

    [words] = printed(GOOD[name], "unio4")
    [run] = done(words, cluster, capsys)
    assert run["state"] == "SUCCEEDED"
    assert run["service_account"] == value(words, "--service-account")
    assert run["runtime_config"]["parameters"]["artifact_root"] == value(words, "--artifact-root")


@pytest.mark.parametrize("words", commands("kfp"), ids=" ".join)
def test_by_kfps_own_program(words: list[str], cluster: RecordedKfp, endpoint: str) -> None:
    from click.testing import CliRunner
    from kfp.cli.cli import cli

    # Mentioned in a sentence, with the parameters beside it.
    told = [] if any("=" in word for word in words) else ["dataset=minari:a", "artifact_root=s3://b/p"]
    files = [str(ROOT / word) if word.endswith(".yaml") else word for word in words[1:]]
    result = CliRunner().invoke(cli, ["--endpoint", endpoint, *files, *told], obj={})
    assert result.exit_code == 0, result.output or result.exception
    [run] = cluster.stored["runs"]
    assert run["runtime_config"]["parameters"]["dataset"].startswith("minari:")
