"""The list of runs with their scores, in experiments of ours and of others."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")

from mlflow.tracking import MlflowClient
from mlflow_process import MlflowServer

from unio4_lib.tracking.delivery import VIEW, Delivery
from unio4_lib.tracking.spool import Target


def test_an_experiment_of_somebody_else_gets_the_list_and_nothing_else(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    client = MlflowClient(mlflow_server.uri)
    made = client.create_experiment("theirs", tags={"mlflow.note.content": "ours alone"})
    target = Target(mlflow_server.uri, "theirs", "a run", "key")
    assert Delivery(mlflow_server.uri, target, tmp_path).experiment_id() == made
    tags = client.get_experiment(made).tags
    assert tags["mlflow.note.content"] == "ours alone"
    assert json.loads(tags[VIEW])["searchFilter"] == "tags.`unio4.stage` = 'run'"
