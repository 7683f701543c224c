"""What happens to a stage at random leaves no trace in its result; ``make test-faults`` draws many more."""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import campaign_of_faults as campaign
import pytest
from faulty_stage import mounts_allowed
from marked_table import write_table
from test_off_policy_runs import overrides
from tiny_runs import SETTINGS, saved_recording

from unio4_lib.methods.configs import load_config

COUNT = int(os.environ.get("UNIO4_FAULTS", "4"))
TABLE = os.environ.get("UNIO4_FAULT_TABLE")
SEED = int(os.environ.get("UNIO4_FAULT_SEED", "0"))
LONGER = {"checkpoint_seconds": 0.02}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[campaign.Undisturbed]:
    dataset = saved_recording(tmp_path_factory.mktemp("recorded"))
    folder = tmp_path_factory.mktemp("undisturbed")
    made = {
        "unio4": [f"{name}={json.dumps(value)}" for name, value in (SETTINGS | LONGER).items()],
        "iql": [*overrides("iql"), "checkpoint_seconds=0.02", "seed=1"],
    }
    return [
        campaign.Undisturbed.run(load_config(dataset=dataset, method=name, overrides=sets), folder / name)
        for name, sets in made.items()
    ]


@pytest.fixture(scope="module")
def faults() -> set[str]:
    """Those that can happen here: not everyone may have mounts of one's own."""
    return set(campaign.FAULTS) if mounts_allowed() else set(campaign.FAULTS) - set(campaign.WITH_MOUNTS)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[campaign.Outcomes]:
    """What became of all; written down where a page for it is named."""
    found: campaign.Outcomes = Counter()
    yield found
    if TABLE and sum(found.values()) == COUNT:  # else one ended badly, and the table would not say so
        write_table(Path(TABLE), "faults", campaign.table(found, SEED))


@pytest.mark.parametrize("number", range(COUNT))
def test_a_fault_leaves_no_trace(
    number: int,
    runs: list[campaign.Undisturbed],
    faults: set[str],
    outcomes: campaign.Outcomes,
    tmp_path: Path,
) -> None:
    case, fault = campaign.draw(SEED, number, runs, faults, tmp_path)
    outcome = campaign.suffer(case, fault)
    outcomes[fault, case.made.method, case.stage, outcome] += 1


def test_an_input_whose_manifest_is_damaged_is_made_again(
    runs: list[campaign.Undisturbed], tmp_path: Path
) -> None:
    case = campaign.Case(runs[-1], "train-offline", tmp_path, random.Random(0))
    shutil.copytree(case.made.root, case.root)
    campaign.forget(case.root, case.made.refs["offline"])
    manifest = case.root / "artifacts" / case.made.refs["dataset"].digest / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"prepare-dataset", b"prepare-dataSet"))
    campaign.finish(case.made, case.stage, case.place, case.root)
    assert campaign.result(case.root, case.place) == case.made.refs["offline"].digest
    campaign.whole(case.root, "the dataset was made again")


def test_the_table_says_what_was_counted(tmp_path: Path) -> None:
    found = Counter(
        {("SIGKILL", "iql", "report", campaign.RERUN): 2, ("SIGINT", "iql", "report", campaign.LINE): 1}
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- faults -->\nold\n<!-- /faults -->\nafter\n")
    write_table(page, "faults", campaign.table(found, 7))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "3 faults, seed 7" in text
    assert "| iql: report | 0 / 2 / 0 |  |  | 0 / 0 / 1 |" in text
