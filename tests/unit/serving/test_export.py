"""Policies as files for other software."""

import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from unio4_lib import __version__
from unio4_lib.errors import InputError
from unio4_lib.nets.files import save_policy
from unio4_lib.nets.kinds import ExpandedPolicy, build_policy
from unio4_lib.nets.policy import Policy, PolicySpec
from unio4_lib.serving import export
from unio4_lib.serving.export import Format, export_policy

FORMATS: tuple[Format, ...] = ("onnx", "torch-export", "torchscript")


def some_policy(**changed: object) -> Policy:
    """A policy with scales and bounds of its own."""
    values = {"members": 2, "observation_dim": 5, "action_dim": 3, "hidden": [32, 16]} | changed
    random = torch.Generator().manual_seed(0)
    policy = build_policy(PolicySpec.from_json(values), generator=random)
    mean, std = torch.randn(5, generator=random), torch.rand(5, generator=random) + 0.5
    if isinstance(policy, ExpandedPolicy):
        policy.expanded.fill_(True)
    policy.set_scales(mean, std, torch.tensor([-1.0, -0.4, 0.0]), torch.tensor([1.0, 0.4, 2.0]))
    return policy.requires_grad_(False)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"activation": "tanh"},
        {"activation": "silu", "std": "shared"},
        {"kind": "deterministic"},
        {"kind": "squashed"},
        {"kind": "family", "coefficients": [1.0, 5.0]},
        {"kind": "squashed_family", "coefficients": [0.5, 1.5]},
        {"kind": "expanded", "layer_norm": True},
    ],
    ids=str,
)
def test_the_file_acts_like_the_policy(form: Format, changed: dict[str, str], tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    policy = some_policy(**changed)
    assert export_policy(policy, tmp_path / "file", form, member=1) <= 1e-6
    act = export.FORMATS[form][1](tmp_path / "file")
    for rows in (1, 33):
        observations = np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)
        actions = act(observations)
        assert actions.shape == (rows, 3)
        np.testing.assert_allclose(actions, policy.act(observations, member=1), atol=1e-6, rtol=0)
        assert np.abs(actions - policy.act(observations, member=0)).max() > 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_acts_otherwise_is_not_kept(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, load = export.FORMATS[form]

    def write_wrong(module: nn.Module, example: NDArray[np.float32], path: Path) -> None:
        assert isinstance(module, export.Deterministic)
        module.policy.observation_mean += 1e-4
        write(module, example, path)
        module.policy.observation_mean -= 1e-4

    monkeypatch.setitem(export.FORMATS, form, (write_wrong, load))
    with pytest.raises(RuntimeError, match="was not kept"):
        export_policy(some_policy(), tmp_path / "file", form)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """As root, a device would be gone for everyone."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    for name in ("pipe", "to-pipe"):
        with pytest.raises(InputError, match=f"{name}: no plain file; expected the name of a file"):
            export_policy(some_policy(), tmp_path / name, "torchscript")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "to-pipe").is_symlink()
    (tmp_path / "to-file").symlink_to("file")
    export_policy(some_policy(), tmp_path / "to-file", "torchscript")
    assert (tmp_path / "to-file").is_symlink() and (tmp_path / "file").stat().st_size > 0
    (tmp_path / "circle").symlink_to("circle")
    for name in ("circle", "a" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            export_policy(some_policy(), tmp_path / name, "torchscript")


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="member is 2; expected 0 to 1"):
        export_policy(some_policy(), tmp_path / "file", "torchscript", member=2)
    with pytest.raises(InputError, match="no folder"):
        export_policy(some_policy(), tmp_path / "there" / "file", "torchscript")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_runs import call

    save_policy(some_policy(), tmp_path / "policy")
    arguments = ["export", str(tmp_path / "policy"), "--output", str(tmp_path / "file")]
    code, out, err = call(capsys, *arguments, "--format", "torchscript")
    assert (code, err) == (0, "")
    assert "differs from the policy by at most" in out
    code, out, err = call(capsys, *arguments, "--format", "pickle")
    assert code == 2
    assert "expected one of onnx, torch-export, torchscript" in err


def read_metadata(path: Path) -> dict[str, str]:
    """As a deployer's runtime shows it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


@pytest.mark.parametrize("acts", ["mean", "sampled"])
def test_an_onnx_file_says_what_it_takes_and_gives(
    acts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    from tiny_runs import call

    folder = tmp_path / "policy"
    save_policy(some_policy(), folder, env_id="robots:Arm-v0", env_kwargs={"weight": 2}, acts=acts)
    files = [tmp_path / name for name in ("one.onnx", "two.onnx")]
    for file in files:
        code, _, err = call(capsys, "export", str(folder), "--output", str(file), "--member", "1")
        assert (code, err) == (0, "")
    found = read_metadata(files[0])
    low, high = (json.loads(found.pop(name)) for name in ("action_low", "action_high"))
    np.testing.assert_allclose([low, high], [[-1.0, -0.4, 0.0], [1.0, 0.4, 2.0]], rtol=1e-6)
    assert found == {
        "producer": "unio4",
        "producer_version": __version__,
        "env_id": "robots:Arm-v0",
        "env_kwargs": '{"weight": 2}',
        "policy_sha256": sha256((folder / "policy.safetensors").read_bytes()).hexdigest(),
        "member": "1",
        "observations": "raw, as the environment gives them; normalization is inside",
        "actions": "mean action, in the units of the environment, from action_low to action_high",
        "delivered_acts": acts,
    }
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_onnx_file_does_not_guess_an_environment(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export_policy(some_policy(), tmp_path / "file", "onnx")
    found = read_metadata(tmp_path / "file")
    assert not {"env_id", "env_kwargs", "policy_sha256"} & set(found)
    assert (found["producer"], found["delivered_acts"]) == ("unio4", "mean")
