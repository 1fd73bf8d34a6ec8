"""Matrix products on the CPU, by the faster of the two libraries that torch brings.

``torch.nn.functional.linear`` calls BLAS, which on AMD processors with AVX-512 (torch is built
with Intel's MKL) reaches only half the speed of oneDNN, and oneDNN is what convolutions
call. A linear layer is a 1x1 convolution of tokens laid out as a channels-last image, and both
layouts describe the same memory, so the detour costs no copy. On other processors, other
devices and in other precisions the plain product is used.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

# torch itself hands smaller convolutions to another library.
_MIN_ELEMENTS = 20481


@cache
def _onednn_is_faster() -> bool:
    return torch.backends.mkldnn.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a matrix: ``x @ weight.T + bias``.

    Parameters
    ----------
    x : (..., k) tensor
        Rows, contiguous for best speed.
    weight : (m, k) tensor
        Matrix.
    bias : (m,) tensor, optional
        Added to every row.

    Returns
    -------
    (..., m) tensor
    """
    suitable = (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.dtype == torch.float32
        and x.numel() >= _MIN_ELEMENTS
        and not torch.is_grad_enabled()
        and torch.get_num_threads() > 1
        and _onednn_is_faster()
    )
    if not suitable:
        return functional.linear(x, weight, bias)
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    kernel = weight.contiguous()[:, :, None, None]
    result = functional.conv2d(image, kernel, bias).permute(0, 2, 3, 1)
    return result.reshape(*x.shape[:-1], weight.shape[0])


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a linear layer, through `product` unless it has been wrapped or hooked.

    Parameters
    ----------
    layer : nn.Module
        Usually ``nn.Linear``; anything else, such as a layer with an adapter, is called as it is.
    x : (..., k) tensor
        Its input.
    """
    if type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks:
        return product(x, layer.weight, layer.bias)
    return layer(x)
