"""``unio4 submit`` with KFP's own client, against a server that answers as KFP 2.17 does."""

import time

import pytest
from kfp_api import RecordedKfp
from kfp_steps import pod_logs, step
from quick_yaml import documents
from tiny_runs import call

from unio4_lib.runs import cluster
from unio4_lib.runs.spec import PipelineSpec, compiled

DATASET = "minari:mujoco/hopper/medium-v0"
SUBMIT = ("submit", "--dataset", DATASET, "--artifact-root", "s3://b/p")


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_a_run_arrives_as_it_was_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.token = "secret-token"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-token")
    asked = (*SUBMIT, "--namespace", "team", "--service-account", "unio4-pipeline", "--run-name", "mine")
    asked += ("--seed", "3", "--set", "improve.steps=77", "--set", "behavior.hidden=[8, 8]", "--no-reuse")
    code, out, err = call(capsys, *asked, "--tracking", "https://m.example", "--experiment", "e")
    assert (code, err) == (0, "")
    [run] = kfp.stored["runs"]
    assert out == f"{endpoint}/#/runs/details/{run['run_id']}\n"
    assert run["runtime_config"]["parameters"] == {
        "dataset": DATASET,
        "preset": "quick",
        "seed": 3,
        "overrides": ["behavior.hidden=[8, 8]", "improve.steps=77"],
        "artifact_root": "s3://b/p",
        "mlflow_tracking_uri": "https://m.example",
        "experiment": "e",
        "run_name": "mine",
        "finetune": "always",
        "reuse": False,
    }
    spec, platform = documents(compiled("unio4").read_text())
    assert run["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}
    assert (run["display_name"], run["service_account"]) == ("mine", "unio4-pipeline")
    [experiment] = kfp.stored["experiments"]
    assert (experiment["display_name"], experiment["namespace"]) == ("e", "team")
    assert run["experiment_id"] == experiment["experiment_id"]

    call(capsys, *asked, "--experiment", "e")
    assert len(kfp.stored["runs"]) == 2
    assert len(kfp.stored["experiments"]) == 1

    call(capsys, *SUBMIT, "--namespace", "kubeflow")  # KFP's client takes this name for none
    assert kfp.stored["experiments"][1]["namespace"] == "kubeflow"


def test_collecting_runs_where_pytorch_is(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    source = "collect:InvertedPendulum-v5?level=random&steps=600"
    code, _, err = call(capsys, "submit", "--dataset", source, "--artifact-root", "s3://b/p")
    assert code == 0, err
    image = PipelineSpec.load(compiled("unio4")).image("finetune-online")
    assert kfp.stored["runs"][0]["runtime_config"]["parameters"]["prepare_image"] == image


def test_a_run_is_followed_to_its_good_end(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.course = [
        {"state": "PENDING"},
        step("RUNNING", prepare_dataset="PENDING"),
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="RUNNING", clone_behavior="RUNNING"),
        None,  # the server restarts; the run does not care
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="SUCCEEDED", clone_behavior="RUNNING"),
        step("SUCCEEDED", prepare_dataset="SUCCEEDED", fit_critics="SUCCEEDED", report_2="SUCCEEDED"),
    ]
    code, out, err = call(capsys, *SUBMIT, "--wait")
    assert code == 0, err
    assert out == f"{endpoint}/#/runs/details/{kfp.stored['runs'][0]['run_id']}\n"
    assert lines(err) == [
        "prepare-dataset: pending",
        "prepare-dataset: succeeded",
        "fit-critics: running",
        "clone-behavior: running",
        "fit-critics: succeeded",
        "report: succeeded",
    ]


@pytest.mark.parametrize("names", ["retry-system-container-impl-", "system-container-impl-", ""])
def test_a_failed_run_says_why(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, names: str
) -> None:
    """KFP's own error is empty: the line comes from the log of the pod, however Argo has named it."""
    kfp.course = [step("FAILED", prepare_dataset="SUCCEEDED", fit_critics="FAILED")]
    kfp.logs = pod_logs("fit-critics: loss is nan at step 7", names)
    code, out, err = call(capsys, *SUBMIT, "--run-name", "mine", "--wait")
    assert code == 1
    said = "error: run mine has failed: fit-critics: loss is nan at step 7"
    assert lines(err)[-1] == f"{said}; see {out.strip()}"


def test_what_never_began_is_not_pending_after_the_end(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.course = [step("FAILED", prepare_dataset="FAILED", fit_critics="PENDING", close_run="SUCCEEDED")]
    _, _, err = call(capsys, *SUBMIT, "--wait")
    assert "pending" not in err


def register(kfp: RecordedKfp, name: str, image: str = "harbor.example/rl") -> None:
    """Two versions of a pipeline, as the chart registers them: with images and places of its own."""
    spec, platform = documents(compiled("unio4").read_text().replace("unio4/", f"{image}/"))
    declared = spec["root"]["inputDefinitions"]["parameters"]
    declared["artifact_root"] |= {"defaultValue": "s3://team/artifacts", "isOptional": True}
    _, owner = kfp.keep("pipelines", "pipeline_id", {"name": name, "display_name": name, "namespace": "team"})
    for version in ("old", "new"):
        kept = {"pipeline_id": owner["pipeline_id"], "display_name": version}
        document = {"pipeline_spec": spec, "platform_spec": platform} if version == "new" else {}
        kfp.keep("versions", "pipeline_version_id", kept | {"pipeline_spec": document})


def test_what_the_chart_registered_is_run(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    for name in ("others", "more", "unio4"):  # on several pages
        register(kfp, name)
    source = "collect:InvertedPendulum-v5?level=random&steps=600"
    asked = ("submit", "--registered", "unio4", "--dataset", source, "--namespace", "team")
    code, _, err = call(capsys, *asked, "--service-account", "rl-pipeline")
    assert code == 0, err
    [run] = kfp.stored["runs"]
    newest = kfp.stored["versions"][-1]
    assert run["pipeline_version_reference"] == {
        name: newest[name] for name in ("pipeline_id", "pipeline_version_id")
    }
    assert "pipeline_spec" not in run
    given = run["runtime_config"]["parameters"]
    assert given["prepare_image"].startswith("harbor.example/rl/finetune-online:")
    assert not {"artifact_root", "mlflow_tracking_uri"} & set(given)  # the chart's own hold
    assert run["service_account"] == "rl-pipeline"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--registered", "none"], "--registered none: no such pipeline at http"),
        (["--registered", "bare"], "--registered bare: not a pipeline of KFP 2"),
        (["--registered", "unio4", "--pipeline", "x.yaml"], "--registered and --pipeline; expected one"),
    ],
)
def test_what_is_not_registered_is_one_line(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, arguments: list[str], words: str
) -> None:
    register(kfp, "bare")
    kfp.stored["versions"].pop()  # the one that is left has no specification
    code, out, err = call(capsys, "submit", "--dataset", DATASET, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_needs_become_parameters(capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str) -> None:
    words = ("cpu=2-8", "memory=16Gi", "gpu=2", "node=pool=gpu", "node=zone=a", "tolerate=gpu:NoSchedule")
    needs = [part for word in (*words, "tolerate=team=rl") for part in ("--needs", word)]
    code, _, err = call(capsys, *SUBMIT, *needs)
    assert code == 0, err
    given = kfp.stored["runs"][0]["runtime_config"]["parameters"]
    assert (given["cpu_request"], given["cpu_limit"]) == ("2", "8")
    assert given["memory_request"] == given["memory_limit"] == "16Gi"
    assert (given["accelerator"], given["accelerators"]) == ("nvidia.com/gpu", "2")  # texts, or KFP drops it
    assert given["node_selector"] == {"pool": "gpu", "zone": "a"}
    assert given["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "rl"},
    ]


def test_claims_are_mounted_where_data_is_read(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    code, _, err = call(capsys, *SUBMIT, "--claim", "logs:/data/logs", "--claim", "more.logs:/data/more")
    assert code == 0, err
    sent = kfp.stored["runs"][0]["pipeline_spec"]["platform_spec"]
    tasks = sent["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounts = {name: task["pvcMount"] for name, task in tasks.items() if "pvcMount" in task}
    assert [one["mountPath"] for one in mounts.pop("exec-prepare-dataset")] == ["/data/logs", "/data/more"]
    assert mounts == {}
    code, _, err = call(capsys, *SUBMIT, "--claim", "logs")
    assert (code, err) == (2, "error: --claim logs: expected NAME:/PATH\n")


@pytest.mark.parametrize("release", ["2.15.0", "2.4.1", "v2.5", "1.8.22"])
def test_a_server_that_is_too_old_is_refused(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, release: str
) -> None:
    kfp.release = release
    code, _, err = call(capsys, *SUBMIT)
    assert code == 2
    why = f"Kubeflow Pipelines {release} is too old for the pipeline; expected 2.16 or newer"
    assert err == f"error: {endpoint}: {why}\n"
    assert kfp.stored["runs"] == []


@pytest.mark.parametrize("release", ["2.16.0", "2.17.0", "3.0.0", "unknown", ""])
def test_other_servers_are_taken(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, release: str
) -> None:
    kfp.release = release
    assert call(capsys, *SUBMIT)[0] == 0


def test_somebody_elses_namespace_is_refused(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.allowed = {"mine"}
    code, _, err = call(capsys, *SUBMIT, "--namespace", "theirs")
    assert code == 2
    assert "answers 403 Forbidden: PermissionDenied: User 'me' is not authorized" in err
    assert call(capsys, *SUBMIT, "--namespace", "mine")[0] == 0


@pytest.mark.parametrize("how", ["FAILED", "DRIVER_FAILED"])
def test_a_failed_run_names_its_stage(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, how: str
) -> None:
    omitted = {"improve_policy": "RUNTIME_STATE_UNSPECIFIED", "close_run": "SUCCEEDED"}
    kfp.course = [step("FAILED", prepare_dataset="SUCCEEDED", fit_critics=how, **omitted)]
    code, out, err = call(capsys, *SUBMIT, "--run-name", "mine", "--wait")
    assert code == 1
    assert lines(err) == [
        "prepare-dataset: succeeded",
        "fit-critics: failed",
        "close-run: succeeded",
        f"error: run mine has failed at fit-critics; see {out.strip()}",
    ]


def test_on_a_terminal_there_is_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what is captured for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    kfp.course = [
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="RUNNING"),
        step("CANCELED", prepare_dataset="SUCCEEDED", fit_critics="CANCELED"),
    ]
    code, _, err = call(capsys, *SUBMIT, "--wait")
    assert code == 1
    for words in ("run running", "run canceled", "stage", "seconds", "prepare-dataset", "running", "30"):
        assert words in err, words
    assert "executor" not in err
    assert "has canceled; see" in err


def test_a_server_that_stays_away_is_not_waited_for_forever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.0)
    kfp.course = [step("RUNNING"), None, None]
    code, _, err = call(capsys, *SUBMIT, "--wait")
    assert code == 2
    assert lines(err) == [f"error: {endpoint}: Kubeflow Pipelines answers 503 Service Unavailable"]


@pytest.mark.parametrize(
    ("arguments", "server", "words"),
    [
        (["--endpoint", "http://127.0.0.1:9"], {}, "http://127.0.0.1:9: no Kubeflow Pipelines answers there"),
        (
            ["--endpoint", "kfp.example"],
            {},
            "--endpoint kfp.example: expected a URL with http:// or https://",
        ),
        ([], {"token": "right"}, "answers 401 Unauthorized: Unauthenticated: the token is not known"),
        (["--token", "wrong"], {"token": "right"}, "answers 401 Unauthorized"),
        (["--token", "wrong", "--namespace", "n"], {"token": "right"}, "answers 401 Unauthorized"),
        ([], {"login_page": "<html>Sign in</html>"}, "not as Kubeflow Pipelines does (with a login page?)"),
        (["--pipeline", str(compiled("sweep"))], {}, "pipeline unio4-sweep: no parameter dataset; expected"),
        (["--pipeline", "none.yaml"], {}, "none.yaml: cannot be read"),
        (["--needs", "cpu=lots"], {}, "--needs cpu=lots: expected cpu=2 or cpu=500m-4"),
        (["--needs", "disk=1"], {}, "--needs disk=1: expected one of cpu=2 or cpu=500m-4"),
        (["--needs", "gpu=0"], {}, "--needs gpu=0: expected gpu=1 (nvidia.com/gpu) or gpu=amd.com/gpu:2"),
        (["--needs", "node=gpu"], {}, "--needs node=gpu: expected node=LABEL=VALUE"),
        (["--needs", "tolerate=a:Never"], {}, "--needs tolerate=a:Never: expected tolerate=KEY"),
        (["--artifact-root", "here"], {}, "--artifact-root: a cluster needs a place that all its nodes see"),
        (["--seed", "x"], {}, "Invalid value for '--seed'"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_run(
    capsys: pytest.CaptureFixture[str],
    kfp: RecordedKfp,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    server: dict[str, str],
    words: str,
) -> None:
    for name, value in server.items():
        setattr(kfp, name, value)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    code, out, err = call(capsys, *SUBMIT, *arguments)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert sum(slept) < 15  # the SDK alone asks a server that refuses for 25 seconds
    assert kfp.stored["runs"] == []
