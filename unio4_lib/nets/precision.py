"""Products of matrices in half the bits, where the processor has instructions for them."""

import torch

from unio4_lib.settings.model import Precision


def product_precision(wanted: Precision, device: torch.device) -> torch.autocast:
    """A context in which hidden layers multiply in bfloat16; weights, sums and outputs stay float32.

    "auto" means where that is faster: about three times on a CPU with AVX512-BF16 or AMX, and not at all
    on one without, which has to emulate it.
    """
    native = device.type == "cuda" or (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    half = wanted == "bfloat16" or (wanted == "auto" and native)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)
