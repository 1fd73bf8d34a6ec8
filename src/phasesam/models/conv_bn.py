"""Convolution with batch normalisation, two layers in training and one in inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBN(nn.Module):
    """Convolution and batch normalisation, folded into one convolution by `fuse`.

    The folded weights live beside the original ones in buffers that are not saved, so the
    state dict keeps its names and training can resume at any time: ``train()`` and loading
    weights drop them.
    """

    fused_weight: Tensor | None
    fused_bias: Tensor | None

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out)
        self.register_buffer("fused_weight", None, persistent=False)
        self.register_buffer("fused_bias", None, persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.unfuse())

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the normalisation into the convolution, in double precision."""
        variance = self.bn.running_var
        mean = self.bn.running_mean
        if variance is None or mean is None:
            return
        scale = self.bn.weight.double() / (variance.double() + self.bn.eps).sqrt()
        weight = self.c.weight.double() * scale[:, None, None, None]
        bias = self.bn.bias.double() - mean.double() * scale
        self.fused_weight = weight.to(self.c.weight).contiguous(memory_format=torch.channels_last)
        self.fused_bias = bias.to(self.c.weight)

    def unfuse(self) -> None:
        """Forget the folded weights."""
        self.fused_weight = None
        self.fused_bias = None

    def train(self, mode: bool = True) -> ConvBN:
        """Switch to training, where the two layers act one after the other again."""
        if mode:
            self.unfuse()
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b, c', h', w')``."""
        if self.fused_weight is None:
            return self.bn(self.c(x))
        return functional.conv2d(
            x,
            self.fused_weight,
            self.fused_bias,
            self.c.stride,
            self.c.padding,
            self.c.dilation,
            self.c.groups,
        )
