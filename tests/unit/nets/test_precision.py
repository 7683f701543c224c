"""Products in half the bits: where they may be, and where not."""

import pytest
import torch

from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.nets.precision import product_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("layer_norm", [False, True])
def test_only_hidden_products_lose_bits(layer_norm: bool) -> None:
    net = EnsembleMLP(2, 4, 3, (64, 64), layer_norm=layer_norm)
    rows = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))
    exact = net(rows)
    inputs = []
    net.output.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with product_precision("bfloat16", CPU):
        found = net(rows)
    assert found.dtype == torch.float32
    # The last product is exact: it is what float32 makes of what the hidden layers gave.
    torch.testing.assert_close(found, net.output(inputs[0]), atol=1e-6, rtol=0)
    difference = (found - exact).abs().max()
    assert 0.0 < difference < 0.02
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_float32_changes_nothing() -> None:
    net, rows = EnsembleMLP(2, 4, 3, (64,)), torch.randn(2, 8, 4)
    with product_precision("float32", CPU):
        assert torch.equal(net(rows), net(rows))
        inside = net(rows)
    assert torch.equal(inside, net(rows))


@pytest.mark.parametrize("native", [False, True])
def test_auto_asks_the_processor(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with product_precision("auto", CPU):
        assert torch.is_autocast_enabled("cpu") == native
