"""A stacked ensemble must be nothing but E networks that happen to share a matrix product."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from unio4_lib.nets.ensemble import EnsembleLinear, EnsembleMLP, Init, NarrowLinear, select_members

MEMBERS, INPUTS, OUTPUTS, HIDDEN = 3, 5, 2, (7, 6)
# Sums of at most seven terms of order one in float64: rounding differs in the last two digits.
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
# Adam divides by the root of a running square, which magnifies rounding wherever a gradient nearly
# vanishes; a hundred steps of 1e-2 move weights by about 0.5, so 1e-9 is still eight digits.
AFTER_ADAM: dict[str, Any] = {"rtol": 0.0, "atol": 1e-9}


def make_ensemble(**options: Any) -> EnsembleMLP:
    generator = torch.Generator().manual_seed(0)
    net = EnsembleMLP(MEMBERS, INPUTS, OUTPUTS, HIDDEN, generator=generator, **options).double()
    for norm in net.norms:  # scales and shifts start equal: give each member its own
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1.0, 0.3, generator=generator)
    return net


def loop_of_networks(ensemble: EnsembleMLP) -> list[nn.Sequential]:
    """The same weights in E ordinary torch networks."""
    activation = {torch.relu_: nn.ReLU, torch.tanh_: nn.Tanh, nn.functional.silu: nn.SiLU}[
        ensemble.activation
    ]
    networks = []
    for member in range(ensemble.members):
        parts: list[nn.Module] = []
        for layer, norm in zip([*ensemble.layers, ensemble.output], [*ensemble.norms, None], strict=True):
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2], dtype=torch.float64)
            linear.weight.data.copy_(layer.weight[member].T)
            linear.bias.data.copy_(layer.bias[member, 0])
            parts.append(linear)
            if norm is None:
                continue
            if not isinstance(norm, nn.Identity):
                plain = nn.LayerNorm(layer.weight.shape[2], dtype=torch.float64)
                plain.weight.data.copy_(norm.scale[member, 0])
                plain.bias.data.copy_(norm.shift[member, 0])
                parts.append(plain)
            parts.append(activation())
        networks.append(nn.Sequential(*parts))
    return networks


def assert_same(ensemble: EnsembleMLP, networks: list[nn.Sequential], what: str, **close: Any) -> None:
    """Compare parameters ("data") or gradients ("grad") of each member with those of its network."""
    stacked: list[tuple[Tensor, bool]] = []
    for layer, norm in zip([*ensemble.layers, ensemble.output], [*ensemble.norms, None], strict=True):
        stacked += [(getattr(layer.weight, what), True), (getattr(layer.bias, what), False)]
        if norm is not None:
            stacked += [(getattr(parameter, what), False) for parameter in norm.parameters()]
    for member, network in enumerate(networks):
        for (tensor, matrix), parameter in zip(stacked, network.parameters(), strict=True):
            mine = tensor[member].T if matrix else tensor[member, 0]
            torch.testing.assert_close(mine, getattr(parameter, what), **close)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("shared", [True, False])
def test_forward_gradients_and_adam_equal_a_loop_over_members(
    shared: bool, activation: str, layer_norm: bool
) -> None:
    ensemble = make_ensemble(activation=activation, layer_norm=layer_norm)
    networks = loop_of_networks(ensemble)
    g = torch.Generator().manual_seed(1)
    steps = 100
    shape = (steps, 11, INPUTS) if shared else (steps, MEMBERS, 11, INPUTS)
    inputs = torch.randn(shape, generator=g, dtype=torch.float64)
    targets = torch.randn(steps, MEMBERS, 11, OUTPUTS, generator=g, dtype=torch.float64)
    together = torch.optim.Adam(ensemble.parameters(), 1e-2)
    alone = [torch.optim.Adam(network.parameters(), 1e-2) for network in networks]
    for step in range(steps):
        outputs = ensemble(inputs[step])
        together.zero_grad()
        (outputs - targets[step]).square().mean(dim=(1, 2)).sum().backward()
        for member, network in enumerate(networks):
            single = network(inputs[step] if shared else inputs[step, member])
            if step == 0:
                assert outputs.shape == (MEMBERS, 11, OUTPUTS)
                torch.testing.assert_close(outputs[member], single, **EXACT)
            alone[member].zero_grad()
            (single - targets[step, member]).square().mean().backward()
        if step == 0:
            assert_same(ensemble, networks, "grad", **EXACT)
        together.step()
        for optimizer in alone:
            optimizer.step()
    assert_same(ensemble, networks, "data", **AFTER_ADAM)


@pytest.mark.parametrize("shared", [True, False])
def test_a_members_loss_reaches_that_member_alone(shared: bool) -> None:
    ensemble = make_ensemble(layer_norm=True)
    inputs = torch.ones(4, INPUTS) if shared else torch.ones(MEMBERS, 4, INPUTS)
    ensemble(inputs.double())[1].sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        assert parameter.grad[[0, 2]].abs().max() == 0
    assert ensemble.output.weight.grad is not None
    assert ensemble.output.weight.grad[1].abs().max() > 0


@pytest.mark.parametrize(
    ("init", "gain", "std"),
    [
        ("uniform", 1.0, 1 / math.sqrt(3 * 100)),
        ("uniform", 0.5, 0.5 / math.sqrt(3 * 100)),
        ("orthogonal", 1.0, 1 / math.sqrt(100)),
        ("orthogonal", 2.0, 2 / math.sqrt(100)),
        # A normal cut at two standard deviations keeps 0.8796 of its std.
        ("truncated", 1.0, 0.8796 / (2 * math.sqrt(100))),
    ],
)
def test_every_member_starts_with_the_distribution_of_its_init(init: Init, gain: float, std: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = EnsembleLinear(6, 100, 100, init=init, gain=gain, generator=generator)
    for member in range(6):
        weight = layer.weight[member].detach()
        # 10,000 weights: the standard error of their std is 0.7 %, so 4 % is beyond five of them.
        assert weight.std().item() == pytest.approx(std, rel=0.04)
        assert abs(weight.mean().item()) < 5 * std / 100
        if init == "orthogonal":
            torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(100), atol=1e-4, rtol=0)
        if init == "uniform":
            assert weight.abs().max() <= gain / 10
            assert layer.bias[member].abs().max() <= gain / 10
            assert layer.bias[member].std().item() == pytest.approx(std, rel=0.3)  # 100 numbers
        else:
            assert layer.bias[member].abs().max() == 0
    for left in range(6):
        for right in range(left):
            assert (layer.weight[left] - layer.weight[right]).std() > std  # sqrt(2) std if independent


def test_equal_generators_give_equal_ensembles_and_others_do_not() -> None:
    first, again, other = (
        EnsembleMLP(2, 3, 1, (4,), generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_gains_reach_their_layers() -> None:
    net = EnsembleMLP(2, 64, 64, (64, 64), init="orthogonal", hidden_gain=2.0, output_gain=0.01)
    sizes = [layer.weight[0].detach().std().item() * 8 for layer in [*net.layers, net.output]]
    assert sizes == pytest.approx([2.0, 2.0, 0.01], rel=0.05)


def test_selected_members_compute_the_same_and_share_nothing() -> None:
    ensemble = make_ensemble(layer_norm=True)
    chosen = EnsembleMLP(2, INPUTS, OUTPUTS, HIDDEN, layer_norm=True).double()
    chosen.load_state_dict(select_members(ensemble, [2, 0]))
    inputs = torch.randn(4, INPUTS, dtype=torch.float64)
    before = ensemble(inputs).detach()
    torch.testing.assert_close(chosen(inputs), before[[2, 0]], **EXACT)
    with torch.no_grad():
        for parameter in chosen.parameters():
            parameter.zero_()
    torch.testing.assert_close(ensemble(inputs), before, **EXACT)


def test_buffers_belong_to_all_members() -> None:
    module = EnsembleLinear(3, 2, 2)
    module.register_buffer("statistics", torch.arange(7.0))
    state = select_members(module, [1])
    assert state["weight"].shape == (1, 2, 2)
    assert torch.equal(state["statistics"], torch.arange(7.0))


def narrow_and_inputs(outputs: int, shared: bool) -> tuple[NarrowLinear, Tensor]:
    generator = torch.Generator().manual_seed(1)
    layer = NarrowLinear(3, 5, outputs, generator=generator).double()
    shape = (4, 5) if shared else (3, 4, 5)
    return layer, torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)


def plainly(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What a layer is, to torch's own gradients."""
    return inputs @ weight + bias


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_handwritten_gradients_of_a_narrow_layer(outputs: int, shared: bool) -> None:
    """By finite differences, first and second ones, and as torch's own of the same formula."""
    layer, inputs = narrow_and_inputs(outputs, shared)

    def found(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight, "bias": bias}, (inputs,))

    given = inputs, *(part.detach().requires_grad_(True) for part in (layer.weight, layer.bias))
    assert torch.autograd.gradcheck(found, given)
    assert torch.autograd.gradgradcheck(found, given)
    ours, theirs = found(*given), plainly(*given)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    left, right = (torch.autograd.grad(one.sin().sum(), given) for one in (ours, theirs))
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_a_narrow_layer_in_single_precision() -> None:
    layer, inputs = narrow_and_inputs(6, shared=False)
    layer, inputs = layer.float(), inputs.detach().float().requires_grad_(True)
    given = inputs, layer.weight, layer.bias
    left = torch.autograd.grad(layer(inputs).square().sum(), given)
    right = torch.autograd.grad(plainly(*given).square().sum(), given)
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_only_gradients_that_are_asked_for_are_made() -> None:
    layer, inputs = narrow_and_inputs(1, shared=False)
    layer.requires_grad_(False)
    (gradient,) = torch.autograd.grad(layer(inputs).sum(), [inputs])
    torch.testing.assert_close(gradient, layer.weight.detach().mT.expand_as(inputs))
    assert layer(inputs.detach()).grad_fn is None
