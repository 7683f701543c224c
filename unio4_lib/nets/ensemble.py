"""Ensembles as one stacked tensor: E networks cost one batched matrix product a layer.

Axis letters: ``E`` member, ``B`` batch. The member axis is always first.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "tanh", "silu"]
Init = Literal["uniform", "orthogonal", "truncated"]

# They write over what a layer has made; SiLU cannot, its gradient needs that.
_ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_, "silu": functional.silu}


class EnsembleLinear(nn.Module):
    """E independent affine maps: ``[B, in]`` (shared input) or ``[E, B, in]`` to ``[E, B, out]``."""

    def __init__(
        self,
        members: int,
        in_features: int,
        out_features: int,
        *,
        init: Init = "uniform",
        gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(members, 1, out_features))
        with torch.no_grad():
            for member in range(members):  # each member draws for itself: no two start alike
                self._init_member(member, init, gain, generator)

    def _init_member(self, member: int, init: Init, gain: float, generator: torch.Generator | None) -> None:
        weight, fan_in = self.weight[member], self.weight.shape[1]
        if init == "orthogonal":
            nn.init.orthogonal_(weight, gain, generator=generator)
        elif init == "truncated":
            std = 1.0 / (2.0 * math.sqrt(fan_in))
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        else:
            bound = gain / math.sqrt(fan_in)
            nn.init.uniform_(weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias[member], -bound, bound, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, self.by_member(inputs), self.weight)

    def by_member(self, inputs: Tensor) -> Tensor:
        """Inputs [E, B, in]; a shared one is no copy for each member."""
        return inputs if inputs.dim() == 3 else inputs.expand(len(self.weight), -1, -1)


class NarrowLinear(EnsembleLinear):
    """The same with few outputs: its products are laid across, in which libraries are much faster."""

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return super().forward(inputs)  # exporters know the plain product alone
        found: Tensor = _Across.apply(self.bias, self.by_member(inputs), self.weight)
        return found


class _Across(torch.autograd.Function):
    """bias [E, 1, out] + inputs [E, B, in] weight [E, in, out] as the transpose of weight' inputs'.

    The gradients are plain operations on what came in, so that they have gradients of their own.
    """

    @staticmethod
    def forward(ctx: Any, bias: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.baddbmm(bias.mT, weight.mT, inputs.mT).mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_bias, of_inputs, of_weight = ctx.needs_input_grad
        single = weight.shape[2] == 1  # an outer product is no work for those libraries
        outward = (gradient * weight.mT if single else gradient @ weight.mT) if of_inputs else None
        return (
            gradient.sum(dim=1, keepdim=True) if of_bias else None,
            outward,
            torch.bmm(gradient.mT, inputs).mT if of_weight else None,
        )


class EnsembleLayerNorm(nn.Module):
    """Layer normalization with a scale and shift of its own for each member."""

    ones: Tensor
    zeros: Tensor

    def __init__(self, members: int, features: int) -> None:
        super().__init__()
        self.features = features  # a plain number: exporters want no size that is found while tracing
        self.scale = nn.Parameter(torch.ones(members, 1, features))
        self.shift = nn.Parameter(torch.zeros(members, 1, features))
        # With a scale and a shift, even of no effect, torch takes a path that is twice as fast on a CPU.
        self.register_buffer("ones", torch.ones(features), persistent=False)
        self.register_buffer("zeros", torch.zeros(features), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        normalized = functional.layer_norm(inputs, (self.features,), self.ones, self.zeros)
        return torch.addcmul(self.shift, normalized, self.scale)


class EnsembleMLP(nn.Module):
    """E multi-layer perceptrons: ``[B, in]`` or ``[E, B, in]`` to ``[E, B, out]``."""

    def __init__(
        self,
        members: int,
        in_features: int,
        out_features: int,
        hidden: Sequence[int],
        *,
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "uniform",
        hidden_gain: float = 1.0,
        output_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.members = members
        self.activation = _ACTIVATIONS[activation]
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        sizes = [in_features, *hidden]
        for fan_in, fan_out in pairwise(sizes):
            self.layers.append(
                EnsembleLinear(members, fan_in, fan_out, init=init, gain=hidden_gain, generator=generator)
            )
            self.norms.append(EnsembleLayerNorm(members, fan_out) if layer_norm else nn.Identity())
        self.output = NarrowLinear(
            members, sizes[-1], out_features, init=init, gain=output_gain, generator=generator
        )

    def forward(self, inputs: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            inputs = self.activation(norm(layer(inputs)))
        device = inputs.device.type
        if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
            return self.output(inputs)
        # Targets are told apart by less than bfloat16 can say.
        with torch.autocast(device, enabled=False):
            return self.output(inputs.float())


@torch.no_grad()
def select_members(module: nn.Module, members: Sequence[int]) -> dict[str, Tensor]:
    """State of the given members alone, to be loaded into a module with ``len(members)`` members.

    Every parameter of an ensemble has the member axis first; buffers are shared by all members.
    """
    index = torch.as_tensor(list(members))
    parameters = {name for name, _ in module.named_parameters()}
    return {
        name: tensor[index].clone() if name in parameters else tensor.clone()
        for name, tensor in module.state_dict().items()
    }
