"""LoRA in training as one product with weight and adapter added up, instead of three products.

``(W + s B A) x`` equals ``W x + s B (A x)``. The sum is as large as the weight, some hundred
rows and columns; an image has thousands of tokens, so that adding two results token by token,
with a cast and a scaling, costs more time and memory than the products themselves.

Backwards the gradient of that sum is not needed: those of B and A follow from narrow products of
the tokens, which saves a third of what the layer costs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from phasesam.models.products import multiply, product


class OneProductLinear(LoraLinear):
    """A linear layer with LoRA; computes what peft's layer computes."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer and its adapter to ``(..., in)``."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = not (args or kwargs or self.disable_adapters or self.merged)
        if not plain or len(names) != 1 or not isinstance(self.base_layer, nn.Linear):
            return super().forward(x, *args, **kwargs)
        dropout = self.lora_dropout[names[0]]
        if isinstance(dropout, nn.Dropout) and dropout.training:
            return super().forward(x)
        total, bias = self._sum(names[0]), self.base_layer.bias
        if self._narrow(x, names[0]):
            up, down = self._factors(names[0])
            return cast(
                Tensor,
                _NarrowGradient.apply(
                    x, total.detach(), bias, up, down, float(self.scaling[names[0]])
                ),
            )
        return product(x, total, bias)

    def _narrow(self, x: Tensor, name: str) -> bool:
        """Whether narrow products save something, and all are in one precision."""
        base = cast(nn.Linear, self.base_layer)
        up, down = self._factors(name)
        rows, columns = base.weight.shape
        return bool(
            torch.is_grad_enabled()
            # Sizes are estimated on the device "meta", which knows no autocast.
            and not (x.device.type != "meta" and torch.is_autocast_enabled(x.device.type))
            and 2 * down.shape[0] * (rows + columns) < rows * columns
            and up.requires_grad
            and down.requires_grad
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and x.dtype == base.weight.dtype == up.dtype == down.dtype
        )

    def _factors(self, name: str) -> tuple[Tensor, Tensor]:
        return cast(Tensor, self.lora_B[name].weight), cast(Tensor, self.lora_A[name].weight)

    def _sum(self, name: str) -> Tensor:
        """Weight and adapter together, in the precision of the weight."""
        weight = cast(nn.Linear, self.base_layer).weight
        up, down = self._factors(name)
        # A product in half precision would lose what one step has changed.
        kind = weight.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            return torch.addmm(
                weight, up.to(weight.dtype), down.to(weight.dtype), alpha=self.scaling[name]
            )


class _NarrowGradient(torch.autograd.Function):
    """A linear layer of W + s B A whose backward pass forms no gradient of that sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, total: Tensor, bias: Tensor | None, up: Tensor, down: Tensor, s: float
    ) -> Tensor:
        ctx.save_for_backward(x, total, up, down)
        ctx.scaling = s
        return product(x, total, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, total, up, down = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        tokens = x.flatten(0, -2)
        back = None
        if ctx.needs_input_grad[0]:
            back = multiply(gradient, total).view(x.shape)
        of_up = multiply(gradient.T, multiply(tokens, down.T)) * ctx.scaling
        of_down = multiply(multiply(gradient, up).T, tokens) * ctx.scaling
        return back, None, None, of_up, of_down, None
