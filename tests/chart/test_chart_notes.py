"""What `helm install` prints: every command is taken by its program, and every warning is in place."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from chart_values import GOOD, Values
from rendered_chart import NAMESPACE, notes, render
from test_chart_pipelines import pipelines

from unio4_lib.cli.submit import submit_app

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
SWITCHES = ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD")


def commands(values: Values, program: str) -> list[list[str]]:
    """The printed command lines of one program, without what the shell would do with their output."""
    lines = [line.partition(" > ")[0] for line in notes(values).splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"   {program} ")]


@pytest.mark.parametrize("name", GOOD)
def test_submit_understands_its_command(name: str) -> None:
    [words] = commands(GOOD[name], "unio4")
    given = typer.main.get_command(submit_app).make_context(words[0], words[1:]).params
    manifests = render(GOOD[name])
    assert given["artifact_root"].startswith("s3://")
    accounts = {one["metadata"]["name"] for one in manifests if one["kind"] == "ServiceAccount"}
    assert given["service_account"] in accounts | {"runner"}
    if GOOD[name].get("kfp", {}).get("enabled", True):
        names = [spec["pipelineInfo"]["name"] for spec, _ in pipelines(manifests).values()]
        assert given["registered"] in names
        assert (given["namespace"] == NAMESPACE) is GOOD[name].get("kfp", {}).get("multiUser", False)


@pytest.mark.parametrize("name", GOOD)
def test_kubectl_understands_its_commands(name: str, tmp_path: Path) -> None:
    """A kubectl without a cluster reads its command line, then finds nobody at the port."""
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "a"}
    config |= {"clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}]}
    config |= {"contexts": [{"name": "a", "context": {"cluster": "a", "user": ""}}]}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "config")}
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in render(GOOD[name])} | {
        "service/ml-pipeline"
    }
    for words in commands(GOOD[name], "kubectl"):
        named = [word for word in words if "/" in word] or ["/".join(words[words.index("get") + 1 :][:2])]
        assert set(named) <= there
        done = subprocess.run(
            ["kubectl", *words], env=environment, capture_output=True, text=True, timeout=600
        )
        assert "connection to the server 127.0.0.1:9 was refused" in done.stderr, done.stderr


def test_clients_outside_keep_away_from_the_inner_s3() -> None:
    """The switches are MLflow's, and are told where S3 has a name of the cluster's only."""
    from mlflow import environment_variables

    for switch in SWITCHES:
        assert hasattr(environment_variables, switch)
        assert f"{switch}=false" in notes({})
        assert switch not in notes(GOOD["air-gapped"])


def test_one_user_of_kfp_in_another_namespace_is_warned() -> None:
    warning = "WARNING: KFP of one user runs pipelines in kubeflow"
    assert warning in notes({})
    assert warning not in notes({"networkPolicy": {"kfpNamespace": NAMESPACE}})
    assert warning not in notes(GOOD["team-aws"])
    assert warning not in notes(GOOD["no kfp"])


def test_the_list_of_runs_is_told() -> None:
    from unio4_lib.tracking.delivery import VIEW_KEY

    assert f"/runs?viewStateShareKey={VIEW_KEY};" in notes({})


def test_running_pipelines_are_told_of() -> None:
    assert "Let running pipelines end first" in notes({})
