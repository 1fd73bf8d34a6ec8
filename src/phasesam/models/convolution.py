"""Convolutions of few channels whose weights learn faster on processors without AVX-512.

There oneDNN gathers the gradient of the weights at a sixth of the speed of everything else, once
maps outgrow the caches, which is a quarter of a training of class maps. Written as products of
some rows of the map at a time, it is three to five times as fast; a row of three pixels by three
is three runs of memory where channels come last.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# Pixels to a product: what is gathered for them, nine pixels each, stays in the cache.
_PIXELS = 1024


class Convolution(nn.Conv2d):
    """A convolution of 3 x 3 pixels, padded to the size of its input; the same as torch's.

    Where products replace its gradients these cannot be differentiated again.

    Parameters
    ----------
    before, after : int
        Channels of input and output.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (b, before, h, w), channels last for best speed."""
        suitable = (
            torch.is_grad_enabled()
            and self.weight.requires_grad
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.is_autocast_enabled("cpu")
            and _products_are_faster()
        )
        if not suitable:
            return super().forward(x)
        return cast(Tensor, _ByProducts.apply(x, self.weight, self.bias))


@cache
def _products_are_faster() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


class _ByProducts(torch.autograd.Function):
    """The convolution, with its own gradient of the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        back = None
        if ctx.needs_input_grad[0]:
            # Not torch.nn.grad.conv2d_input, which forgets how channels lie in memory.
            back = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        return back, weight_gradient(x, gradient), gradient.sum((0, 2, 3))


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weights of a convolution of 3 x 3 pixels with a padding of one.

    Parameters
    ----------
    x : (b, k, h, w) tensor
        Input, channels last for best speed.
    gradient : (b, m, h, w) tensor
        Of the output.

    Returns
    -------
    (m, k, 3, 3) tensor
    """
    count, channels, height, width = x.shape
    padded = _framed(x.permute(0, 2, 3, 1))
    image, row, pixel, _ = padded.stride()
    # A view: three rows of three neighbouring pixels about each pixel.
    around = padded.as_strided((count, height, width, 3, 3 * channels), (image, row, pixel, row, 1))
    rows = max(1, _PIXELS // width)
    gathered = x.new_empty(rows, width, 3, 3 * channels)
    total = x.new_zeros(gradient.shape[1], 9 * channels)
    for one, of_one in zip(around, gradient.permute(0, 2, 3, 1), strict=True):
        for first in range(0, height, rows):
            part = of_one[first : first + rows].reshape(-1, gradient.shape[1])
            pixels = gathered[: min(rows, height - first)]
            pixels.copy_(one[first : first + rows])
            total.addmm_(part.T, pixels.view(len(part), -1))
    return total.view(-1, 3, 3, channels).permute(0, 3, 1, 2)


def _framed(x: Tensor) -> Tensor:
    """Put zeros around (b, h, w, k), without filling the whole with them before."""
    count, height, width, channels = x.shape
    framed = x.new_empty(count, height + 2, width + 2, channels)
    for edge in (framed[:, 0], framed[:, -1], framed[:, :, 0], framed[:, :, -1]):
        edge.zero_()
    framed[:, 1:-1, 1:-1] = x
    return framed
