"""Where tensors live."""

import torch

from unio4_lib.errors import InputError
from unio4_lib.settings.model import RunConfig


def choose_device(config: RunConfig) -> torch.device:
    """The device, chosen once for the whole run."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch sees none on this machine; expected auto or cpu")
    return torch.device(config.device)
