"""LoRA on query and value of a fused projection, as SAMed places it.

After SAMed (Zhang and Liu, arXiv 2304.13785): one bottleneck for the query and one for the
value; the key keeps its weights. peft alone would put one bottleneck on all three.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional

from phasesam.models.one_product import OneProductLinear


class QueryValueUp(nn.Module):
    """The second half of both bottlenecks as one matrix with a block each for query and value.

    Parameters
    ----------
    rank : int
        Width of one bottleneck.
    dim : int
        Channels of query, key and value each.
    """

    def __init__(self, rank: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim, rank))
        self.value = nn.Parameter(torch.zeros(dim, rank))

    @property
    def weight(self) -> Tensor:
        """The (3 dim, 2 rank) matrix from both bottlenecks to query, key and value."""
        none = torch.zeros_like(self.query)
        return torch.cat([
            torch.cat([self.query, none], dim=1),
            torch.cat([none, none], dim=1),
            torch.cat([none, self.value], dim=1),
        ])  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., 2 rank) to (..., 3 dim)."""
        return functional.linear(z, self.weight)


class QueryValueLinear(OneProductLinear):
    """A fused query-key-value projection with LoRA on query and value only."""

    def update_layer(
        self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any
    ) -> None:
        """Add one adapter; called by peft."""
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)
        projection: Any = self.get_base_layer()
        down = nn.Linear(projection.in_features, 2 * r, bias=False)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        self.lora_A[adapter_name] = down
        self.lora_B[adapter_name] = QueryValueUp(r, projection.out_features // 3)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
