"""Read weights from files that may come from anywhere, without ever running code from them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
