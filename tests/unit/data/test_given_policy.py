"""What a given policy does can be recorded: the next log of an offline, online, offline journey."""

from pathlib import Path

import numpy as np
import pytest
import torch
from broken_inputs import Capture, refused
from tiny_runs import ENVIRONMENT, call

from unio4_lib.errors import InputError
from unio4_lib.nets.files import load_policy, save_policy
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.sources.state import source_digest


def saved(folder: Path, seed: int = 0, dims: tuple[int, int] = (4, 1)) -> Path:
    """A deterministic policy in the folder of a run, which also has an older one."""
    for name, weights in (("offline", seed + 100), ("online", seed)):
        spec = PolicySpec(1, *dims, (8,), kind="deterministic")
        policy = build_policy(spec, generator=torch.Generator().manual_seed(weights))
        policy.action_low.fill_(-3.0)
        policy.action_high.fill_(3.0)
        save_policy(policy, folder / "policies" / name, env_id=ENVIRONMENT)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def test_its_last_policy_acts_by_its_mean(home: Path) -> None:
    run = saved(home / "my run")
    source = f"collect:{ENVIRONMENT}?policy={run}&steps=60&noise=0"
    rows = load_transitions(source)
    policy, _ = load_policy(run / "policies" / "online")
    assert len(rows.rewards) == 60
    assert np.allclose(rows.actions, policy.act(rows.observations), atol=1e-5)
    assert np.abs(rows.actions).max() > 0.0


def test_another_policy_in_the_same_place_is_another_recording(home: Path, capsys: Capture) -> None:
    run, told = saved(home / "run"), ("dataset", "collect", ENVIRONMENT, "--steps", "30", "--policy")
    names, digests = [], []
    for seed in (0, 0, 7):
        saved(run, seed)
        code, out, _ = call(capsys, *told, str(run))
        assert code == 0
        names.append(out)
        digests.append(source_digest(f"collect:{ENVIRONMENT}?policy={run}&steps=30"))
    assert names[0] == names[1] != names[2]
    assert digests[0] == digests[1] != digests[2]
    moved = run.rename(home / "elsewhere")
    assert call(capsys, *told, str(moved))[1] == names[2]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("policy=nowhere", "policy=nowhere: no policy there; expected the folder of a finished run"),
        ("policy=x&level=medium", "level=medium and policy=x; give one of the two"),
        ("level=policy", "level=policy and policy=None; give one of the two"),
    ],
)
def test_what_cannot_act_is_one_line(options: str, line: str, capsys: Capture) -> None:
    refused(capsys, ["dataset", "inspect", f"collect:{ENVIRONMENT}?{options}"], line)


def test_a_policy_of_another_environment_is_refused(home: Path) -> None:
    run = saved(home / "run", dims=(3, 2))
    with pytest.raises(
        InputError, match="has 3 observations and 2 actions, but InvertedPendulum-v5 has 4 and 1"
    ):
        load_transitions(f"collect:{ENVIRONMENT}?policy={run}&steps=10")
