"""TinyViT image encoder of MobileSAM and of SAM-HQ's smallest model.

Architecture: Wu et al., "TinyViT", ECCV 2022 (microsoft/Cream, MIT), in the 5M size and with
the stride changes and the neck of Zhang et al., "Faster Segment Anything" (MobileSAM,
Apache-2.0). Parameter names are those of MobileSAM's published checkpoint, without its
ImageNet classifier (``norm_head`` and ``head``), which segmentation never uses.

What differs from the published code is how it is computed, not what: activations stay
channels-last from the first convolution to the last, so that turning a feature map into
tokens and back is a change of view; batch normalisation is folded into the convolutions for
inference; wide hidden layers are computed in strips that stay in the processor's cache
instead of in buffers of 64 MiB; attention is fused with its bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from phasesam.models.conv_bn import ConvBN
from phasesam.models.products import apply_linear

# What is computed at once in inference: few enough pixels of a feature map, and elements of a
# hidden layer, that they stay in the processor's cache.
_STRIP_PIXELS = 1 << 13
_STRIP_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class TinyViTConfig:
    """Sizes of a TinyViT.

    Attributes
    ----------
    dims : tuple of int
        Channels of the four stages.
    depths, heads, windows : tuple of int
        Blocks, attention heads and window edge (in tokens) of each stage; the first stage is
        convolutional and ignores heads and window.
    strides : tuple of int
        Stride of the transition after each of the first three stages.
    out_channels : int
        Channels of the image embedding.
    """

    dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    strides: tuple[int, int, int] = (2, 2, 1)
    out_channels: int = 256


class PatchEmbed(nn.Module):
    """Two strided convolutions: pixels to features at a quarter of the resolution."""

    def __init__(self, channels_in: int, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvBN(channels_in, dim // 2, 3, 2), nn.GELU(), ConvBN(dim // 2, dim, 3, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to ``(b, dim, h / 4, w / 4)``."""
        return self.seq(x) if self.training else _in_strips(self.seq, x, 4)


class MBConv(nn.Module):
    """Inverted bottleneck: widen, mix neighbours, narrow, add."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion
        self.conv1 = ConvBN(dim, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBN(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, dim, h, w)`` to the same shape."""
        return self._compute(x) if self.training else _in_strips(self._compute, x, 1)

    def _compute(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv1(x))
        hidden = functional.gelu(self.conv2(hidden))
        return functional.gelu(self.conv3(hidden) + x)


class PatchMerging(nn.Module):
    """Transition between stages: change of width and, with stride 2, of resolution."""

    def __init__(self, dim: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(dim, dim_out)
        self.conv2 = ConvBN(dim_out, dim_out, 3, stride, groups=dim_out)
        self.conv3 = ConvBN(dim_out, dim_out)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, dim, h, w)`` to ``(b, dim_out, h / stride, w / stride)``."""
        return self._compute(x) if self.training else _in_strips(self._compute, x, self.stride)

    def _compute(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.conv1(x))
        x = functional.gelu(self.conv2(x))
        return self.conv3(x)


class ConvStage(nn.Module):
    """First stage, made of convolutions only."""

    def __init__(self, dim: int, dim_out: int, depth: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MBConv(dim) for _ in range(depth))
        self.downsample = PatchMerging(dim, dim_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, dim, h, w)`` to ``(b, dim_out, h / stride, w / stride)``."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class WindowAttention(nn.Module):
    """Attention among the tokens of one window, with a learnt bias per offset."""

    bias_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def _bias(self) -> Tensor:
        """Bias of every pair of tokens, ``(1, heads, window ** 2, window ** 2)``."""
        axis = torch.arange(self.window, device=self.attention_biases.device)
        offset = (axis[:, None] - axis[None, :]).abs()
        index = offset[:, None, :, None] * self.window + offset[None, :, None, :]
        tokens = self.window * self.window
        return self.attention_biases[:, index.reshape(tokens, tokens)][None]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, window ** 2, dim)`` to the same shape; ``n`` counts windows."""
        count, tokens, dim = x.shape
        qkv = (
            apply_linear(self.qkv, self.norm(x)).view(count, tokens, self.heads, -1).transpose(1, 2)
        )
        query, key, value = qkv.chunk(3, dim=-1)
        x = _attend(query, key, value, self._bias())
        return apply_linear(self.proj, x.transpose(1, 2).reshape(count, tokens, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend with a bias, ``(n, heads, tokens, dim)``."""
    if not (torch.is_grad_enabled() and query.device.type == "cpu"):
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # With a bias in half precision, torch differentiates windows several times more slowly.
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=bias.float()
        ).to(query.dtype)


class Mlp(nn.Module):
    """Two linear layers applied to every token by itself."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim * expansion)
        self.fc2 = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., dim)`` to the same shape."""
        hidden = functional.gelu(apply_linear(self.fc1, self.norm(x)))
        return apply_linear(self.fc2, hidden)


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, and a multi-layer perceptron."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, dim, h, w)`` to the same shape."""
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self._attend(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return _residual_in_chunks(self.mlp, tokens, 4).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attend within windows of ``x``, ``(b, h, w, dim)``, padded with zeros to fit."""
        batch, height, width, dim = x.shape
        edge = self.window
        if (height, width) == (edge, edge):
            return self.attn(x.reshape(batch, edge * edge, dim)).view(x.shape)
        x = functional.pad(x, (0, 0, 0, -width % edge, 0, -height % edge))
        rows, columns = x.shape[1] // edge, x.shape[2] // edge
        x = x.view(batch, rows, edge, columns, edge, dim).transpose(2, 3)
        x = self._attend_to_windows(x.reshape(-1, edge * edge, dim))
        x = x.view(batch, rows, columns, edge, edge, dim).transpose(2, 3)
        return x.reshape(batch, rows * edge, columns * edge, dim)[:, :height, :width]

    def _attend_to_windows(self, windows: Tensor) -> Tensor:
        if torch.is_grad_enabled() or windows.device.type != "cpu":
            return self.attn(windows)
        # Query, key and value together are three times as large.
        for group in windows.split(max(1, _STRIP_ELEMENTS // (2 * windows[0].numel()))):
            group.copy_(self.attn(group))
        return windows


class AttentionStage(nn.Module):
    """A later stage: blocks of window attention, and the transition unless it is the last."""

    def __init__(self, config: TinyViTConfig, index: int) -> None:
        super().__init__()
        dim = config.dims[index]
        self.blocks = nn.ModuleList(
            TinyViTBlock(dim, config.heads[index], config.windows[index])
            for _ in range(config.depths[index])
        )
        self.downsample: PatchMerging | None = None
        if index < len(config.dims) - 1:
            self.downsample = PatchMerging(dim, config.dims[index + 1], config.strides[index])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, dim, h, w)`` to ``(b, dim_out, h / stride, w / stride)``."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of ``(b, c, h, w)``."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to the same shape."""
        x = x.permute(0, 2, 3, 1)
        x = functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """Image encoder that maps an image to an embedding at a sixteenth of its resolution.

    Parameters
    ----------
    config : TinyViTConfig, optional
        Sizes; MobileSAM's when left out.
    """

    def __init__(self, config: TinyViTConfig | None = None) -> None:
        super().__init__()
        config = config or TinyViTConfig()
        self.config = config
        self.patch_embed = PatchEmbed(3, config.dims[0])
        first = ConvStage(config.dims[0], config.dims[1], config.depths[0], config.strides[0])
        self.layers = nn.ModuleList(
            [first, *(AttentionStage(config, index) for index in range(1, len(config.dims)))]
        )
        channels = config.out_channels
        self.neck = nn.Sequential(
            nn.Conv2d(config.dims[-1], channels, 1, bias=False),
            ChannelNorm(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            ChannelNorm(channels),
        )

    def fuse(self) -> TinyViT:
        """Fold all batch normalisations for inference; undone by ``train()``."""
        for module in self.modules():
            if isinstance(module, ConvBN):
                module.fuse()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode normalised images.

        Parameters
        ----------
        x : (b, 3, h, w) tensor
            Normalised images; any height and width, multiples of 16 avoid odd borders.

        Returns
        -------
        features : (b, 256, h / 16, w / 16) tensor
            The image embedding.
        intermediate : list of one (b, h / 16, w / 16, 160) tensor
            Output of the second stage, which SAM-HQ's decoder takes.
        """
        x = self.patch_embed(x)
        intermediate: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == 1:
                intermediate.append(x.permute(0, 2, 3, 1))
        return self.neck(x).contiguous(), intermediate


def _in_strips(layer: Callable[[Tensor], Tensor], x: Tensor, stride: int) -> Tensor:
    """Apply convolutions to ``x`` a few rows at a time when no gradient is asked.

    Parameters
    ----------
    layer : callable
        Maps ``(b, c, h, w)`` to ``(b, c', h / stride, w / stride)``, and what it computes for a
        row depends on no more than the rows that make up this one and its two neighbours.
    x : (b, c, h, w) tensor
        Channels-last for best speed.
    stride : int
        Rows of `x` to one row of the result.
    """
    height, width = x.shape[2:]
    strip = max(4, _STRIP_PIXELS // (x.shape[0] * width)) if x.device.type == "cpu" else height
    if torch.is_grad_enabled() or strip >= height:
        return layer(x)
    rows, total = max(2, strip // stride), -(-height // stride)
    result: Tensor | None = None
    for top in range(0, total, rows):
        start, stop = max(0, top - 1), min(total, top + rows)
        part = layer(x[:, :, start * stride : (stop + 1) * stride])[:, :, top - start :]
        if result is None:
            shape = (x.shape[0], part.shape[1], total, part.shape[3])
            result = part.new_empty(shape).contiguous(memory_format=torch.channels_last)
        result[:, :, top:stop] = part[:, :, : stop - top]
    return layer(x) if result is None else result


def _residual_in_chunks(layer: Callable[[Tensor], Tensor], x: Tensor, expansion: int) -> Tensor:
    """Add ``layer(x)`` to ``x``, ``(b, h, w, c)``, in pieces unless gradients are on."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return x + layer(x)
    flat = x.reshape(-1, x.shape[-1])
    for strip in flat.split(max(256, _STRIP_ELEMENTS // (expansion * flat.shape[1]))):
        strip += layer(strip)
    return flat.view(x.shape)
