"""What the multi-prompt decoder carries from step to step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageContext:
    """What all prompts on one image share.

    With N image tokens (4096), C channels (256), D = C / 2 and H heads (8).

    Attributes
    ----------
    keys : (N, C) tensor
        Image tokens plus the dense prompt (no mask, or one mask).
    first_k, first_v : (1, H, N, D / H) tensors
        Keys and values of the first token-to-image attention.
    first_q : (N, D) tensor
        Queries of the first image-to-token attention.
    position_k : tuple of (H, D / H, N) tensors
        Position part of the keys of the second and the final token-to-image attention.
    position_q : (N, D) tensor
        Position part of the queries of the second image-to-token attention.
    high_resolution : (1, 32, 4 x side, 4 x side) tensor or None
        Early and late encoder features fused, for SAM-HQ.
    """

    keys: Tensor
    first_k: Tensor
    first_v: Tensor
    first_q: Tensor
    position_k: tuple[Tensor, Tensor]
    position_q: Tensor
    high_resolution: Tensor | None = None


@dataclass(frozen=True)
class CentredKeys:
    """Image tokens of B prompts as a mean and the offsets from it.

    Softmax over the image tokens does not see the mean, so half precision is spent on what
    tells the tokens apart.

    Attributes
    ----------
    offsets : (B, N, C) tensor
        In the product precision; a buffer that the next batch overwrites.
    mean : (B, 1, C) tensor
        In the precision of the weights.
    exact : (B, N, C) tensor
        The offsets in the precision of the weights.
    """

    offsets: Tensor
    mean: Tensor
    exact: Tensor

    def __getitem__(self, index: Tensor) -> CentredKeys:
        """Select prompts."""
        return CentredKeys(self.offsets[index], self.mean[index], self.exact[index])


class Workspace:
    """Buffers by name, kept between calls and grown when needed. Not shared between threads."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of `shape` with dtype and device of `like`."""
        count = 1
        for size in shape:
            count *= size
        buffer = self._buffers.get(name)
        if (
            buffer is None
            or buffer.numel() < count
            or buffer.dtype != like.dtype
            or buffer.device != like.device
        ):
            buffer = torch.empty(count, dtype=like.dtype, device=like.device)
            self._buffers[name] = buffer
        return buffer[:count].view(shape)

    def clear(self) -> None:
        """Give the memory back."""
        self._buffers.clear()
