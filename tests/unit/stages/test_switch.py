"""Who goes online, and that a choice which is none is refused before anything runs."""

from pathlib import Path

import pytest
from tiny_runs import call

from unio4_lib.stages.switch import goes_online

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("choice", "accepted", "online"),
    [
        ("always", 0, True),
        ("always", 3, True),
        ("improved", 0, False),
        ("improved", 1, True),
        ("never", 0, False),
        ("never", 3, False),
    ],
)
def test_who_goes_online(choice: str, accepted: int, online: bool) -> None:
    assert goes_online(choice, accepted) is online


@pytest.mark.parametrize("runner", ["inline", "process"])
def test_another_choice_is_refused_at_once(runner: str, capsys: Capture, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    code, out, err = call(
        capsys,
        *("run", "--runner", runner, "--finetune", "sometimes"),
        *("--dataset", "minari:x", "--output", str(output)),
    )
    assert (code, out) == (2, "")
    assert err.strip().endswith("finetune is 'sometimes'; expected one of always, improved, never")
    assert len(err.strip().splitlines()) == 1
    assert not output.exists()
