"""State on disk: bit for bit, whole or refused, never in the way of training."""

import math
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unio4_lib.artifacts.store import FolderStore
from unio4_lib.errors import InputError
from unio4_lib.learning.checkpoint import Checkpointer, load_state, save_state
from unio4_lib.methods.unio4.settings import UniO4Config


def same(a: Any, b: Any) -> bool:
    """Equal in type and bits, container by container."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        bits = [x.reshape(-1).contiguous().view(torch.uint8) for x in (a, b)] if a.numel() else [a, b]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return repr(a) == repr(b)


def test_everything_that_a_trainer_has_comes_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.tensor([1.0, float("nan"), -0.0])
    python, numpy_, torch_ = random.Random(3), np.random.default_rng(4), torch.Generator().manual_seed(5)
    state = {
        "none": None,
        "flags": [True, False],
        "numbers": (1, -(2**127), 0.1, -0.0, math.inf, -math.inf, math.nan),
        "text": "é \u0000 {}",
        "by_number": {0: {"deep": []}, -7: ()},
        "tensors": [shared, shared[1:], torch.zeros(0, 3), torch.tensor(7), torch.ones(4, 3).T],
        "types": [torch.ones(2, dtype=d) for d in (torch.bfloat16, torch.float64, torch.bool, torch.int64)],
        "arrays": [np.arange(6.0).reshape(2, 3).T, np.array(2), np.zeros((0, 2), np.uint8), np.array([True])],
        "scalars": [np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True)],
        "generators": [python.getstate(), numpy_.bit_generator.state, torch_.get_state()],
    }
    save_state(tmp_path / "deep" / "state", state)
    loaded = load_state(tmp_path / "deep" / "state")
    assert same(loaded, state)
    python.setstate(loaded["generators"][0])
    numpy_.bit_generator.state = loaded["generators"][1]
    torch_.set_state(loaded["generators"][2])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state"]


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def trainer() -> tuple[nn.Module, torch.optim.Optimizer, torch.Generator]:
        net = nn.Linear(3, 1)
        return net, torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99)), torch.Generator().manual_seed(1)

    def steps(net: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(4, 3, generator=generator)).square().mean().backward()
            optimizer.step()

    net, optimizer, generator = trainer()
    steps(net, optimizer, generator)
    state = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    save_state(tmp_path / "state", state)
    steps(net, optimizer, generator)
    again, optimizer, generator = trainer()
    loaded = load_state(tmp_path / "state")
    again.load_state_dict(loaded["net"])
    optimizer.load_state_dict(loaded["optimizer"])
    generator.set_state(loaded["generator"])
    steps(again, optimizer, generator)
    assert same(dict(again.state_dict()), dict(net.state_dict()))


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {1.5: 1}, {True: 1}, np.array(["a"])])
def test_what_cannot_be_saved_is_named_by_its_place(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^state\.a\.1: "):
        save_state(tmp_path / "state", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_any_flipped_bit_or_cut_is_detected_and_the_file_named(tmp_path: Path) -> None:
    path, source = tmp_path / "state.ckpt", random.Random(0)
    save_state(path, {"a": torch.randn(50), "b": [1, 2]})
    whole = path.read_bytes()
    places = [*range(100), *(source.randrange(len(whole)) for _ in range(200))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << source.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"state\.ckpt: "):
            load_state(path)
    for end in range(0, len(whole), 11):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"state\.ckpt: "):
            load_state(path)
    with pytest.raises(InputError, match=r"none: the state cannot be read"):
        load_state(tmp_path / "none")


def test_a_failed_write_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    save_state(path, {"step": 1})

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_state(path, {"step": 2})
    assert load_state(path) == {"step": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_saved_on_an_interval_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("unio4_lib.learning.checkpoint.time.monotonic", lambda: now[0])
    checkpointer = Checkpointer(10.0, tmp_path / "local")
    assert checkpointer.load() is None
    collected: list[float] = []

    def state() -> dict[str, Any]:
        collected.append(now[0])
        return {"at": now[0]}

    for now[0] in (105.0, 109.9, 110.0, 115.0, 120.1, 131.0):
        checkpointer.offer(state)
    assert collected == [110.0, 120.1, 131.0]
    assert Checkpointer(10.0, tmp_path / "local").load() == {"at": 131.0}
    assert len(list((tmp_path / "local").iterdir())) == 2


def test_an_empty_disk_goes_on_from_the_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    first = Checkpointer(0.0, tmp_path / "a", store, "checkpoints/f")
    for step in range(5):
        first.save({"step": step, "weights": torch.full((3,), float(step))})
        assert first.flush(10)
    second = Checkpointer(0.0, tmp_path / "b", store, "checkpoints/f")
    assert same(second.load(), {"step": 4, "weights": torch.full((3,), 4.0)})
    second.save({"step": 5})
    assert second.close(10)
    # The first machine has an older state on its disk than the store has.
    assert Checkpointer(0.0, tmp_path / "a", store, "checkpoints/f").load() == {"step": 5}
    second.discard()
    assert Checkpointer(0.0, tmp_path / "b", store, "checkpoints/f").load() is None


def test_a_damaged_checkpoint_is_passed_over_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpointer = Checkpointer(0.0, tmp_path)
    checkpointer.save({"step": 1})
    checkpointer.save({"step": 2})
    newest = tmp_path / "state-0.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    again = Checkpointer(0.0, tmp_path)
    assert again.load() == {"step": 1}
    assert "state-0.ckpt" in caplog.text
    again.save({"step": 3})
    assert Checkpointer(0.0, tmp_path).load() == {"step": 3}
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"state-\d\.ckpt: 0 bytes"):
        Checkpointer(0.0, tmp_path).load()


class SlowStore(FolderStore):
    """Waits to be let on, and fails when told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate, self.entered, self.failing, self.sent = threading.Event(), threading.Event(), False, 0

    def put_bytes(self, key: str, data: bytes) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        self.sent += 1
        if self.failing:
            raise InputError("the store is away")
        super().put_bytes(key, data)


def test_training_does_not_wait_for_the_store_and_the_newest_goes_first(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "root")
    checkpointer = Checkpointer(0.0, tmp_path / "local", store)
    checkpointer.save({"step": 0})
    assert store.entered.wait(10)
    for step in range(1, 6):
        checkpointer.save({"step": step})
    assert not checkpointer.flush(0.01)
    store.gate.set()
    assert checkpointer.close(10)
    assert store.sent == 2  # the first and the last
    assert Checkpointer(0.0, tmp_path / "other", store).load() == {"step": 5}


def test_a_store_that_fails_does_not_stop_training(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "root")
    store.gate.set()
    store.failing = True
    checkpointer = Checkpointer(0.0, tmp_path / "local", store)
    checkpointer.save({"step": 1})
    assert not checkpointer.flush(10)
    assert checkpointer.problem == "checkpoint not in the store yet: the store is away"
    store.failing = False
    checkpointer.save({"step": 2})
    assert checkpointer.close(10)
    assert checkpointer.problem is None


def test_a_sudden_end_loses_at_most_a_minute_and_checkpoints_cost_less_than_a_percent(tmp_path: Path) -> None:
    """At the default interval, with a state as large as any of the presets quick and standard."""
    interval = UniO4Config.model_fields["checkpoint_seconds"].default
    state = {f"layer{part}": torch.zeros(125_000) for part in range(40)}  # 20 MB
    checkpoints = Checkpointer(interval, tmp_path / "work", FolderStore(tmp_path / "root"))
    spent, began = time.thread_time(), time.monotonic()
    checkpoints.save(state)
    spent = time.thread_time() - spent
    assert checkpoints.flush()
    assert spent < 0.01 * interval
    assert interval + (time.monotonic() - began) < 60.0
    checkpoints.close()
