"""``unio4 sweep --runner kfp``: a run for each member, so many at a time, found again by name."""

from typing import Any

import pytest
from kfp_api import RecordedKfp
from kfp_steps import NODE, pod_logs, step
from tiny_runs import call

from unio4_lib.runs.cluster_sweep import table_of
from unio4_lib.runs.spec import compiled

HOPPER, WALKER = "minari:mujoco/hopper/medium-v0", "minari:mujoco/walker2d/medium-v0"
TABLE = "| Dataset | Method | Mean |\n|---|---|---|\n| d | m | 1.0 |\n\nOf 2 runs: fine."
BOARD_LOGS = {f"unio4-x7k2p-system-container-impl-{NODE[-1]}": f"noise\n{TABLE}\nerror: none\n"}


def sweep_arguments(*more: str, seeds: str = "0-1", datasets: tuple[str, ...] = (HOPPER,)) -> tuple[str, ...]:
    sources = [part for dataset in datasets for part in ("--dataset", dataset)]
    given = ("sweep", "--runner", "kfp", *sources, "--seeds", seeds, "--name", "s")
    return (*given, "--artifact-root", "s3://b/p", *more)


def ends_well(run: dict[str, Any]) -> list[dict[str, Any]]:
    """A run that is under way when it is looked at first, and done when it is looked at again."""
    stage = "leaderboard" if "leaderboard" in run["display_name"] else "report"
    return [step("RUNNING", **{stage: "RUNNING"}), *[step("SUCCEEDED", **{stage: "SUCCEEDED"})] * 3]


def one_fails(run: dict[str, Any]) -> list[dict[str, Any]]:
    if run["runtime_config"]["parameters"].get("seed") == 1:
        return [step("FAILED", prepare_dataset="FAILED")] * 3
    return ends_well(run)


def names(kfp: RecordedKfp) -> list[str]:
    return [run["display_name"] for run in kfp.stored["runs"]]


def test_members_are_runs_of_the_pipeline_and_a_leaderboard_follows(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.plan, kfp.logs = ends_well, BOARD_LOGS
    asked = sweep_arguments(
        "--wait", "--needs", "cpu=2", "--set", "improve.steps=77", datasets=(HOPPER, WALKER)
    )
    code, out, err = call(capsys, *asked)
    assert code == 0, err
    assert out == f"{TABLE}\n"
    *members, board = kfp.stored["runs"]
    expected = [f"s seed {seed} unio4 {source}" for source in (HOPPER, WALKER) for seed in (0, 1)]
    assert [run["display_name"] for run in members] == expected  # the seed first: lists cut what is long
    for run, (source, seed) in zip(members, [(s, n) for s in (HOPPER, WALKER) for n in (0, 1)], strict=True):
        given = run["runtime_config"]["parameters"]
        assert (given["dataset"], given["seed"], given["sweep"]) == (source, seed, "s")
        assert (given["overrides"], given["cpu_limit"]) == (["improve.steps=77"], "2")
        assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "unio4"
    assert board["display_name"] == "s leaderboard"
    assert board["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "unio4-leaderboard"
    assert [one["seed"] for one in board["runtime_config"]["parameters"]["members"]] == [0, 1, 0, 1]
    assert len({run["experiment_id"] for run in kfp.stored["runs"]}) == 1


def test_a_hundred_members_run_so_many_at_a_time(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.plan, kfp.logs = ends_well, BOARD_LOGS
    code, _, err = call(capsys, *sweep_arguments("--wait", "--parallel", "7", seeds="0-99"))
    assert code == 0, err
    assert len(names(kfp)) == 101
    assert kfp.most_active == 7
    before = list(names(kfp))

    # The same name goes on: everything is there, only the leaderboard is made again.
    code, _, err = call(capsys, *sweep_arguments("--wait", seeds="0-99"))
    assert code == 0, err
    assert names(kfp) == [*before, "s leaderboard"]
    assert err.count("done before") == 100

    code, _, _ = call(capsys, *sweep_arguments("--again", "--parallel", "100", seeds="0-2"))
    assert code == 0
    assert len(names(kfp)) == 105


def test_what_another_command_left_under_way_is_waited_for_and_what_failed_runs_again(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.plan, kfp.logs = one_fails, pod_logs("prepare-dataset: no such dataset")
    code, out, err = call(capsys, *sweep_arguments("--parallel", "3", seeds="0-2"))
    assert (code, out) == (0, "")  # all have begun; without --wait nobody waits
    assert len(names(kfp)) == 3
    kfp.stored["runs"][1] |= step("FAILED", prepare_dataset="FAILED")  # while nobody looked
    kfp.logs |= BOARD_LOGS
    code, out, err = call(capsys, *sweep_arguments("--wait", seeds="0-2"))
    assert code == 1
    assert names(kfp)[3:] == [f"s seed 1 unio4 {HOPPER}", "s leaderboard"]
    assert out == f"{TABLE}\n"  # also of a sweep with a bad member
    assert f"s seed 1 unio4 {HOPPER}: failed: prepare-dataset: no such dataset" in err.splitlines()
    last = err.splitlines()[-1]
    assert last.startswith("error: 1 of 3 members did not succeed; the first: s seed 1")
    assert last.endswith("failed: prepare-dataset: no such dataset")


def test_a_sweep_is_canceled_as_one(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.plan = ends_well
    call(capsys, *sweep_arguments("--parallel", "9", seeds="0-8"))
    call(capsys, *sweep_arguments("--name", "s2", seeds="0"))
    kfp.stored["runs"][0]["state"] = "SUCCEEDED"
    code, _, err = call(capsys, "sweep", "--runner", "kfp", "--name", "s", "--cancel")
    assert code == 0, err
    assert len(err.splitlines()) == 8
    states = [run["state"] for run in kfp.stored["runs"]]
    assert states == ["SUCCEEDED", *["CANCELED"] * 8, "PENDING"]  # s2 is another sweep


def test_a_server_that_is_away_for_a_while_is_asked_again(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.plan, kfp.logs = ends_well, BOARD_LOGS
    call(capsys, *sweep_arguments("--parallel", "2"))
    kfp.course = [None, None]
    code, _, err = call(capsys, *sweep_arguments("--wait"))
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cancel"], "--cancel: expected --runner kfp and the --name of a sweep"),
        (["--seeds", "0"], "no --dataset; expected at least one source"),
        (["--dataset", HOPPER, "--runner", "argo"], "--runner argo: expected one of process, docker, kfp"),
        (["--dataset", HOPPER, "--runner", "kfp"], "--artifact-root: a cluster needs a place"),
        (
            ["--dataset", HOPPER, "--runner", "kfp", "--artifact-root", "s3://b/p", "--pipeline"]
            + [str(compiled("leaderboard"))],
            "pipeline unio4-leaderboard: no parameter dataset",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, arguments: list[str], words: str
) -> None:
    code, out, err = call(capsys, "sweep", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_leaderboard_is_found_in_a_log() -> None:
    assert table_of(iter(["nothing", f"x\n{TABLE}\nerror: x"])) == TABLE
    assert table_of(iter(["nothing"])) is None
