"""From a run's folder to its record and its command; bad input is one line."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from made_records import make_run, render_report
from tiny_runs import call

from unio4_lib import words
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import find_method
from unio4_lib.methods.reproduce import FROM_FILE, reproduce_command
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.report.facts import SCHEMA, Facts, Log
from unio4_lib.report.record import RunRecord, read_run
from unio4_lib.settings.model import config_digest
from unio4_lib.settings.pages import config_yaml

UNIO4 = find_method("unio4")
Capture = pytest.CaptureFixture[str]


def write_run(folder: Path, record: RunRecord) -> Path:
    """The folder that such a run leaves behind."""
    folder.mkdir(parents=True)
    files: dict[str, Any] = {
        "summary.json": {**record.summary.to_json(), "online_curve": record.curve},
        "metrics.json": {name: Log(entries=stage.log).to_json() for name, stage in record.stages.items()},
        "facts.json": {name: stage.told for name, stage in record.stages.items()},
        "decisions.json": [entry.to_json() for entry in record.decisions],
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "config.yaml").write_text(config_yaml(UniO4Config.model_validate(record.config)))
    return folder


def test_a_record_survives_its_folder(tmp_path: Path) -> None:
    record = make_run()
    found = read_run(write_run(tmp_path / "run", record))
    assert found.stages == record.stages
    assert (found.decisions, found.curve, found.config) == (record.decisions, record.curve, record.config)


def test_a_run_without_facts_or_logs_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", make_run(with_facts=False))
    for name in ("facts.json", "metrics.json", "decisions.json", "config.yaml"):
        (folder / name).unlink()
    found = read_run(folder)
    assert found.stage("fit-critics").log == []
    assert found.setting("finetune.env_steps") is None
    assert found.stage("never-heard-of").facts(Facts) == Facts()


RELEASES: dict[str, dict[str, Any]] = {
    "before there was a version": {},
    "now": {"schema_version": SCHEMA},
    "later": {"schema_version": SCHEMA + 1, "something_new": [1]},
}


def test_facts_and_logs_of_every_release_give_the_same_report(tmp_path: Path) -> None:
    record = make_run()
    pages = set()
    for release, more in RELEASES.items():
        folder = write_run(tmp_path / release, record)
        lines = {name: [line.to_json() for line in stage.log] for name, stage in record.stages.items()}
        logs = {name: {"entries": log} | more if more else log for name, log in lines.items()}
        facts = {name: stage.told | more for name, stage in record.stages.items()}
        (folder / "metrics.json").write_text(json.dumps(logs))
        (folder / "facts.json").write_text(json.dumps(facts))
        pages.add(render_report(read_run(folder)))
    assert pages == {render_report(record)}


def test_what_an_older_release_did_not_tell_is_empty() -> None:
    record = make_run()
    for name in ("bias", "correlation"):
        del record.stages["fit-critics"].told[name]
    del record.stages["report"].told["ope"]["rank_correlation"]
    page = render_report(record)
    assert f"correlation {words.UNKNOWN}" in page
    assert "Estimates against true returns of 8 policies<" in page


def test_series_by_member() -> None:
    stage = make_run().stages["clone-behavior"]
    series = stage.series("behavior/holdout_log_likelihood")
    assert list(series) == ["0", "1"]
    assert series["1"][0] == (100, 1.1)
    assert stage.last("behavior/holdout_log_likelihood") == pytest.approx(1.0)
    assert stage.last("behavior/nothing") is None


def test_the_command_gives_the_same_settings_again() -> None:
    wanted = load_config(
        "standard", dataset="minari:a b'c", seed=3, overrides=["improve.steps=77", "finetune.target_kl=null"]
    )
    command = reproduce_command(UNIO4, wanted.model_dump(mode="json"))
    parts = shlex.split(command.replace("\\\n", " "))
    options = dict(zip(parts[2:8:2], parts[3:8:2], strict=True))
    overrides = [parts[i + 1] for i, part in enumerate(parts) if part == "--set"]
    again = load_config(
        options["--preset"], dataset=options["--dataset"], seed=int(options["--seed"]), overrides=overrides
    )
    assert config_digest(again) == config_digest(wanted)
    assert options["--preset"] == "standard"
    assert len(overrides) == 2


def test_settings_of_another_release_are_taken_from_the_file() -> None:
    config = load_config("quick", dataset="minari:x").model_dump(mode="json")
    assert reproduce_command(UNIO4, {**config, "new_key": 1}) == FROM_FILE
    assert reproduce_command(UNIO4, {}) == FROM_FILE


def test_the_command_writes_the_page_of_one_run(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", make_run())
    code, out, err = call(capsys, "report", str(run))
    assert (code, err) == (0, "")
    assert Path(out.strip()) == run / "report.html"
    assert "300 ± 5".replace(" ", "\N{NO-BREAK SPACE}") in (run / "report.html").read_text()


def test_the_command_compares_runs(tmp_path: Path, capsys: Capture) -> None:
    runs = [str(write_run(tmp_path / f"run{seed}", make_run(seed=seed))) for seed in range(2)]
    target = tmp_path / "new" / "both.html"
    code, out, _ = call(capsys, "report", *runs, "--output", str(target))
    assert code == 0
    assert out.strip() == str(target)
    assert "2 runs of Test-v0" in target.read_text()


BROKEN = {
    "config.yaml": "[1, 2]",
    "decisions.json": '["what"]',
    "curve.json": "[[0, 1.5]]",
    "facts.json": '{"prepare-dataset": {"returns": 5}}',
    "metrics.json": '{"fit-critics": [{"step": "first", "values": {}}]}',
}


@pytest.mark.parametrize(
    ("prepare", "arguments", "expected"),
    [
        ("none", ["missing"], "no such folder"),
        ("empty", ["run"], "no summary.json here"),
        ("failed", ["run"], "it failed"),
        ("torn", ["run"], "not JSON"),
        ("list", ["run"], "list at the top"),
        ("partial", ["run"], "expected a summary written by unio4"),
        ("config.yaml", ["run"], "config.yaml: list at the top; expected settings"),
        ("decisions.json", ["run"], "error: run/decisions.json or curve.json: decisions.0: input should be "),
        ("curve.json", ["run"], "decisions.json or curve.json: curve.0: list should have at least 3 items"),
        ("facts.json", ["run"], "error: run/facts.json: prepare-dataset: returns: input should be "),
        ("metrics.json", ["run"], "error: run/metrics.json: fit-critics: entries.0.step: input should be "),
        ("whole", ["run", "run"], "given twice"),
        ("whole", ["run", "other", "--video"], "expected one"),
        ("whole", ["run", "--output", "file/report.html"], "cannot be written"),
        ("whole", ["run", "--output", "pipe"], "pipe: no plain file; expected the name of a file"),
        ("whole", ["run", "other", "--output", "pipe"], "pipe: no plain file"),
        ("whole", ["run", "--output", "other"], "other: a folder; expected the name of a file"),
    ],
)
def test_bad_input_is_one_line(
    prepare: str,
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    os.mkfifo(tmp_path / "pipe")
    content = {"torn": '{"stages', "list": "[]", "partial": '{"scores": {}}'}.get(prepare)
    if prepare == "whole":
        write_run(tmp_path / "run", make_run())
        write_run(tmp_path / "other", make_run(seed=1))
    elif prepare in BROKEN:
        (write_run(tmp_path / "run", make_run()) / prepare).write_text(BROKEN[prepare])
    elif prepare != "none":
        (tmp_path / "run").mkdir()
        if prepare == "failed":
            (tmp_path / "run" / "failed.txt").write_text("why")
        if content is not None:
            (tmp_path / "run" / "summary.json").write_text(content)
    code, out, err = call(capsys, "report", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert expected in err
