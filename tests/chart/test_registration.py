"""The job that registers pipelines, against the recorded API of KFP (see kfp_api.py)."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp_api import RecordedKfp, make_server
from rendered_chart import CHART

SCRIPT = CHART / "files" / "scripts" / "register_pipelines.py"
PIPELINE = """
pipelineInfo: {name: %s, description: What it does}
root: {inputDefinitions: {parameters: {dataset: {parameterType: STRING}, seed: {isOptional: true}}}}
"""
RECURRING = {
    "pipeline": "unio4",
    "cron": "0 0 3 * * *",
    "max_concurrency": 1,
    "experiment": "nightly",
    "service_account": "runner",
    "parameters": {"dataset": "a"},
}
Register = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kfp() -> RecordedKfp:
    return RecordedKfp()


@pytest.fixture
def register(kfp: RecordedKfp, tmp_path: Path) -> Iterator[Register]:
    """The job with two pipelines; keyword arguments are further variables of its environment."""
    for name in ("sweep", "unio4"):
        (tmp_path / f"{name}.yaml").write_text(PIPELINE % name)
    server = make_server(kfp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fixed = {
        "KFP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "PIPELINES": str(tmp_path),
        "VERSION": "1.0.0",
        "RECURRING_RUN_NAME": "nightly",
        "TIMEOUT_SECONDS": "300",
        "PATH": os.environ["PATH"],
    }

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT)]
        return subprocess.run(command, env=fixed | variables, capture_output=True, text=True, timeout=600)

    yield run
    server.shutdown()
    server.server_close()


def recurring(**changed: Any) -> dict[str, str]:
    return {"RECURRING_RUN": json.dumps(RECURRING | changed)}


def test_only_what_changed_becomes_a_version(kfp: RecordedKfp, register: Register, tmp_path: Path) -> None:
    # More than a page of others' pipelines stands before ours.
    for name in ("a", "b", "c"):
        kfp.keep("pipelines", "pipeline_id", {"display_name": name})
    assert register().returncode == 0
    assert [one["display_name"] for one in kfp.stored["pipelines"]] == ["a", "b", "c", "sweep", "unio4"]
    first = [one["name"] for one in kfp.stored["versions"]]
    assert len(first) == 2
    assert all(name.startswith("1.0.0-") for name in first)

    count = len(kfp.changes)
    assert register(VERSION="2.0.0").returncode == 0
    assert len(kfp.changes) == count

    (tmp_path / "unio4.yaml").write_text(PIPELINE % "unio4" + "# another\n")
    assert register(VERSION="2.0.0").returncode == 0
    [_, path, content] = kfp.changes[-1]
    assert path.endswith("/pipelines/upload_version")
    assert content.endswith("# another\n")
    assert kfp.stored["versions"][-1]["name"].startswith("2.0.0-")
    assert len(kfp.stored["versions"]) == 3


def test_a_rollback_makes_the_old_content_the_newest_version(
    kfp: RecordedKfp, register: Register, tmp_path: Path
) -> None:
    file, old = tmp_path / "unio4.yaml", PIPELINE % "unio4"
    for content in (old, old + "# another\n", old, old):
        file.write_text(content)
        assert register().returncode == 0
    names = [one["name"] for one in kfp.stored["versions"] if one["name"].startswith("1.0.0-")]
    contents = [body for _, path, body in kfp.changes if path.endswith("/upload_version")]
    ours = [content for content in contents if "name: unio4," in content]
    # The fourth found its content to be the newest.
    assert [content == old for content in ours] == [True, False, True]
    assert names[-1] == f"{names[1]}-2"


def test_recurring_run_follows_its_settings(kfp: RecordedKfp, register: Register) -> None:
    others = {"display_name": "nightly", "description": "made by hand"}
    kfp.keep("recurringruns", "recurring_run_id", others)

    def ours() -> list[dict[str, Any]]:
        return [one for one in kfp.stored["recurringruns"] if one["description"] != "made by hand"]

    assert register(**recurring()).returncode == 0
    [made] = ours()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert made["service_account"] == "runner"
    assert made["runtime_config"] == {"parameters": {"dataset": "a"}}
    assert register(**recurring()).returncode == 0
    assert ours() == [made]
    assert register(**recurring(cron="0 0 4 * * *")).returncode == 0
    [changed] = ours()
    assert changed["recurring_run_id"] != made["recurring_run_id"]
    assert register().returncode == 0
    assert ours() == []
    assert len(kfp.stored["recurringruns"]) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pipeline": "other"}, "kfp.recurringRun.pipeline is 'other'; registered are sweep, unio4"),
        (
            {"parameters": {"dataset": "a", "sed": 1}},
            "kfp.recurringRun.parameters: sed is no parameter of unio4",
        ),
        ({"parameters": {}}, "kfp.recurringRun.parameters: dataset is missing"),
    ],
)
def test_bad_recurring_run_is_refused(
    kfp: RecordedKfp, register: Register, changed: dict[str, Any], message: str
) -> None:
    done = register(**recurring(**changed))
    assert done.returncode == 2
    assert message in done.stderr
    assert kfp.stored["recurringruns"] == []


def test_a_kfp_that_starts_is_waited_for(kfp: RecordedKfp, register: Register) -> None:
    kfp.busy = 2
    done = register()
    assert done.returncode == 0
    assert done.stdout.count("waiting for KFP: ") == 2


def test_a_kfp_of_many_users_wants_token_and_namespace(
    kfp: RecordedKfp, register: Register, tmp_path: Path
) -> None:
    kfp.token = "t"
    refused = register()
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: KFP: GET http://")
    assert "401" in refused.stderr
    (tmp_path / "token").write_text("t\n")
    assert register(KFP_TOKEN_FILE=str(tmp_path / "token"), KFP_NAMESPACE="team").returncode == 0
    assert {one["namespace"] for one in kfp.stored["pipelines"]} == {"team"}


def test_a_file_that_is_no_pipeline_is_named(register: Register, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: ConfigMap\n")
    done = register()
    assert done.returncode == 2
    assert done.stderr == "error: a.yaml is no compiled pipeline: it has no pipelineInfo\n"
