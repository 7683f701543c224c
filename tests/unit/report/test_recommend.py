"""Which method to take: chances by hand, what data are like, and the command on a sweep that is finished."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_records import facts, make_run
from tiny_runs import call, saved_recording

from unio4_lib.artifacts.folder_store import FolderStore
from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.errors import InputError
from unio4_lib.report.facts import DatasetFacts
from unio4_lib.report.recommend import Features, choose, describe, distance, features, nearness, sentence
from unio4_lib.stages.step import STAGE_FACTS_FILE, SUMMARY_FILE
from unio4_lib.stages.sweep import Member, record_failure, record_report

ONE = {"d": 1.0}
FEW = Features(1_000, 10, 0.2, None, 0.9)
MANY = Features(1_000_000, 1_000, 0.8, None, 0.3)


def test_the_choice_is_above_the_others_in_most_pairs() -> None:
    """Of nine pairs b is above a in eight and above c in all; a is the closest."""
    found = choose({"d": {"a": [1.0, 2.0, 5.0], "b": [4.0, 6.0, 7.0], "c": [0.0, 0.0, 1.0]}}, ONE)
    assert found is not None
    assert (found.method, found.closest, found.runs, found.interval) == ("b", "a", 3, None)
    assert found.chance == pytest.approx(8 / 9)
    assert 0.9 < found.kept < 1.0


def test_five_runs_have_an_interval_that_holds_the_chance() -> None:
    found = choose({"d": {"a": [1.0, 2.0, 3.0, 4.0, 9.0], "b": [2.5, 3.5, 5.0, 6.0, 7.0]}}, ONE)
    assert found is not None and found.interval is not None
    assert (found.method, found.chance) == ("b", pytest.approx((2 + 3 + 4 + 4 + 4) / 25))
    assert found.interval[0] < found.chance < found.interval[1]
    assert found.interval[1] - found.interval[0] > 0.3


def test_datasets_count_by_weight_and_only_methods_with_runs_on_each() -> None:
    scores = {
        "d": {"a": [1.0] * 3, "b": [2.0] * 3, "c": [9.0]},
        "e": {"a": [5.0] * 3, "b": [3.0] * 3},
    }
    for weight, wanted in ((0.2, "a"), (0.8, "b")):
        found = choose(scores, {"d": weight, "e": 1.0 - weight})
        assert found is not None
        assert (found.method, found.datasets, found.kept) == (wanted, 2, 1.0)
        assert found.chance == pytest.approx(0.8)
    assert choose({"d": {"a": [1.0]}}, ONE) is None


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({"a": [1.0, 2.0, 3.0], "b": [10.0, 11.0, 12.0]}, "Take b: a run of it is above one of a,"),
        ({"a": [1.0, 2.0, 4.2], "b": [4.0, 4.0, 4.5]}, "Take b, probably: a run of it is"),
        ({"a": [1.0, 5.0, 3.0], "b": [4.0, 4.0, 4.5]}, "No method stands out. b comes first, but a run"),
        ({"a": [1.0], "b": [4.0, 5.0, 6.0]}, "Take b, but it is a guess from as few as one run each:"),
    ],
)
def test_it_says_how_sure_it_is(scores: dict[str, list[float]], says: str) -> None:
    found = choose({"d": scores}, ONE)
    assert found is not None
    assert sentence(found).startswith(says)


def test_features_are_size_quality_and_coverage() -> None:
    told = DatasetFacts.model_validate(facts()["prepare-dataset"] | {"normalized": 12.5})
    told.actions[0].counts, told.actions[1].counts = [5, 5, 0, 0], [8, 0, 0, 0]
    found = features(told)
    assert (found.transitions, found.episodes, found.normalized) == (7000, 70, 12.5)
    assert found.quality == pytest.approx((15.0 - 0.5) / (29.5 - 0.5))
    assert found.coverage == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert told.returns is not None
    told.returns.mean = told.returns.quantiles.least = told.returns.quantiles.most = 3.0
    assert features(told).quality == 1.0
    with pytest.raises(InputError, match="kept no returns"):
        features(DatasetFacts(id="d"))
    text = describe(found)
    assert "7,000 rows of 70 episodes" in text and "normalized score of 12.5" in text


def test_the_nearer_data_count_more() -> None:
    assert distance(FEW, FEW) == 0.0
    assert distance(FEW, MANY) == distance(MANY, FEW) == pytest.approx((9 + 0.36 + 0.36) ** 0.5)
    found = nearness(Features(2_000, 20, 0.3, None, 0.8), {"few": FEW, "many": MANY})
    assert found["few"] > 5 * found["many"]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two datasets, two methods, three seeds; iql is better on the small one, unio4 on the large one."""
    store = FolderStore(tmp_path / "artifacts")
    for dataset, size in (("small", 1.0), ("large", 100.0)):
        for method in ("unio4", "iql"):
            for seed in range(3):
                better = (method == "iql") == (dataset == "small")
                record = make_run(seed=seed, dataset=dataset, online=200.0 * (1 + better) + seed)
                told: dict[str, Any] = facts()
                told["prepare-dataset"]["transitions"] = int(1000 * size)
                folder = tmp_path / f"{dataset}-{method}-{seed}"
                folder.mkdir()
                (folder / SUMMARY_FILE).write_text(json.dumps(record.summary.to_json()))
                (folder / STAGE_FACTS_FILE).write_text(json.dumps(told))
                manifest = Manifest.of_folder(folder, kind="report", stage="report", config_digest="c" * 64)
                ref = store.publish(folder, manifest)
                config = {"dataset": dataset, "seed": seed, "method": method}
                record_report(store, Member("s", dataset, seed, method), ref, config)
    record_failure(store, Member("s", "small", 9, "iql"), "it broke")
    return tmp_path


def test_the_command_recommends_for_each_dataset_and_all(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "recommend", "s", "--output", str(sweep))
    assert (code, err) == (0, "")
    large, small, both = out.strip().split("\n\n")
    assert large.startswith("large: 100,000 rows of 70 episodes; ") and "\nTake unio4: " in large
    assert small.startswith("small: 1,000 rows of 70 episodes; ") and "\nTake iql: " in small
    assert both.startswith("all of them\nNo method stands out.")
    code, out, _ = call(capsys, "recommend", "s", "--output", str(sweep), "--dataset", "small", "--json")
    (answer,) = json.loads(out)
    assert (answer["choice"]["method"], answer["choice"]["runs"], answer["weights"]) == (
        "iql",
        3,
        {"small": 1},
    )


def test_other_data_is_told_by_what_it_is_like(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six hundred rows are more like a thousand than like a hundred thousand."""
    source = saved_recording(tmp_path / "mine")
    code, out, err = call(capsys, "recommend", "s", "--output", str(sweep), "--dataset", source)
    assert (code, err) == (0, "")
    about, near, advice = out.strip().split("\n")
    assert about.startswith(f"{source}: 600 rows of ")
    assert near.startswith("It is not in the sweep; what counts is how like it the others are: small by 8")
    assert advice.startswith("Take iql, probably: a run of it, over 2 datasets,")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (("nothing",), "error: sweep nothing: nothing of it is finished in "),
        (("s", "--dataset", "nowhere:x"), "nowhere"),
    ],
)
def test_what_cannot_be_recommended_is_one_line(
    told: tuple[str, ...], line: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "recommend", *told, "--output", str(sweep))
    assert (code != 0, out, err.count("\n")) == (True, "", 1)
    assert line in err
