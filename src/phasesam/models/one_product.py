"""LoRA in training as one product with weight and adapter added up, instead of three products.

``(W + s B A) x`` equals ``W x + s B (A x)``. The sum is as large as the weight, some hundred
rows and columns; an image has thousands of tokens, so that adding two results token by token,
with a cast and a scaling, costs more time and memory than the products themselves.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional


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
        return functional.linear(x, self._sum(names[0]), self.base_layer.bias)

    def _sum(self, name: str) -> Tensor:
        """Weight and adapter together, in the precision of the weight."""
        weight = cast(nn.Linear, self.base_layer).weight
        up, down = cast(Tensor, self.lora_B[name].weight), cast(Tensor, self.lora_A[name].weight)
        # A product in half precision would lose what one step has changed. Sizes are estimated
        # on the device "meta", which knows no autocast.
        kind = weight.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            return torch.addmm(
                weight, up.to(weight.dtype), down.to(weight.dtype), alpha=self.scaling[name]
            )
