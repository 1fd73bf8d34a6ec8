"""Matrix products on the CPU, by the faster of the two libraries that torch brings.

``torch.nn.functional.linear`` calls BLAS, which on AMD processors with AVX-512 (torch is built
with Intel's MKL) reaches only half the speed of oneDNN, forwards and backwards. torch calls oneDNN
for linear layers only where it compiles a model; the operation that it compiles them to is called
here. On other processors, other devices and in other precisions the plain product is used.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# Below, a call of oneDNN costs as much as it saves.
_MIN_ELEMENTS = 20481


@cache
def _onednn_is_faster() -> bool:
    # Versions of torch that do not tell the name of the processor get oneDNN on all of them.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "Intel" not in str(known.get("cpu_name", ""))
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
        Can be differentiated once.
    """
    if not _suits(x, weight):
        return functional.linear(x, weight, bias)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return cast(Tensor, _Product.apply(x, weight, bias))
    return _onednn(x, weight, bias)


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Multiply two matrices, ``first @ second``, without a gradient.

    Parameters
    ----------
    first : (n, k) tensor
        The larger one; copied where it is transposed.
    second : (k, m) tensor
        The other.

    Returns
    -------
    (n, m) tensor
    """
    return _onednn(first, second.T, None) if _suits(first, second) else first @ second


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


def _suits(x: Tensor, weight: Tensor) -> bool:
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _MIN_ELEMENTS
        and not torch.is_autocast_enabled("cpu")
        and _onednn_is_faster()
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # The bias is read as if its numbers followed each other, whatever its strides say.
    bias = None if bias is None else bias.contiguous()
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


class _Product(torch.autograd.Function):
    """The product, which oneDNN differentiates as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Tokens are many: they are kept for the gradient of weights that learn only.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = multiply(rows, weight).view(*gradient.shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[1]:
            of_weight = multiply(rows.T, x.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias
