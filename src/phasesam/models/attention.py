"""Fast attention for SAM's ViT encoders: the same weights and numbers, less memory and time.

SAM adds a learnt bias to every attention score, the sum of one term for the row offset and one
for the column offset of query and key, both products with the query ("decomposed relative
position", Li et al., "MViTv2", 2022). The published code writes all scores of all heads into
memory, several times: 12 x 4096 x 4096 numbers for one image. Here

* on the CPU without gradients, scores exist for a few grid rows of one head at a time and stay
  in the processor's cache;
* everywhere else the bias becomes part of the scalar product: a query gets its row and column
  terms as further elements, a key the indicator of its row and its column, and the fused
  attention kernels of the device never store a score at all.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from phasesam.models.products import apply_linear, product

# Buffers beyond 32 MiB are returned to the operating system at once by the C library, and
# getting fresh ones page by page takes longer than filling them.
_BUFFER_BYTES = 16 << 20


class FastAttention(nn.Module):
    """Multi-head attention with decomposed relative positions.

    Parameters
    ----------
    attention : nn.Module
        ``Attention`` of segment_anything or segment_anything_hq, whose parameters are taken over
        under the same names.
    """

    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.num_heads = cast(int, attention.num_heads)
        self.scale = cast(float, attention.scale)
        self.qkv = cast(nn.Module, attention.qkv)
        self.proj = cast(nn.Module, attention.proj)
        self.use_rel_pos = cast(bool, attention.use_rel_pos)
        if self.use_rel_pos:
            self.rel_pos_h = cast(nn.Parameter, attention.rel_pos_h)
            self.rel_pos_w = cast(nn.Parameter, attention.rel_pos_w)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens of every grid.

        Parameters
        ----------
        x : (b, h, w, c) tensor
            Grids of tokens; the batch counts windows in blocks with windows.

        Returns
        -------
        (b, h, w, c) tensor
        """
        batch, height, width, _ = x.shape
        qkv = apply_linear(self.qkv, x).view(batch, height * width, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if not self.use_rel_pos:
            out = functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        elif x.device.type != "cpu" or torch.is_grad_enabled():
            out = self._attend_augmented(query, key, value, (height, width))
        elif height * width > 1024:
            out = self._attend_in_rows(query, key, value, (height, width))
        else:
            rows, columns = self._relative(query, (height, width))
            bias = (rows[..., :, None] + columns[..., None, :]).view(*rows.shape[:3], -1)
            out = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, scale=self.scale
            )
        return apply_linear(self.proj, out.transpose(1, 2).reshape(batch, height, width, -1))

    def _relative(self, query: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Row and column terms of the bias, ``(b, heads, h * w, h)`` and ``(..., w)``."""
        height, width = grid
        batch, heads, tokens, dim = query.shape
        grids = query.reshape(batch * heads, height, width, dim)
        by_row = _offsets(self.rel_pos_h, height).to(query.dtype)
        by_column = _offsets(self.rel_pos_w, width).to(query.dtype)
        rows = torch.matmul(grids, by_row.transpose(1, 2))
        columns = torch.matmul(grids.transpose(1, 2), by_column.transpose(1, 2)).transpose(1, 2)
        return (
            rows.reshape(batch, heads, tokens, height),
            columns.reshape(batch, heads, tokens, width),
        )

    def _attend_augmented(
        self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Attend with the bias inside the scalar product; works with gradients."""
        height, width = grid
        batch, heads, _, dim = query.shape
        rows, columns = self._relative(query, grid)
        extra = height + width
        # Fused kernels want equal widths of query, key and value, divisible by 8.
        filler = -(dim + extra) % 8
        zeros = query.new_zeros(1).expand(*query.shape[:3], filler)
        eye_h = torch.eye(height, device=query.device, dtype=query.dtype)
        eye_w = torch.eye(width, device=query.device, dtype=query.dtype)
        place = torch.cat([eye_h.repeat_interleave(width, 0), eye_w.repeat(height, 1)], 1)
        wide_query = torch.cat([query * self.scale, rows, columns, zeros], -1)
        wide_key = torch.cat([key, place.expand(batch, heads, -1, -1), zeros], -1)
        wide_value = functional.pad(value, (0, extra + filler))
        out = functional.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=1.0)
        return out[..., :dim]

    def _attend_in_rows(
        self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Attend a few grid rows of one head at a time."""
        height, width = grid
        batch, heads, tokens, dim = query.shape
        step = max(1, _BUFFER_BYTES // (4 * tokens * width)) * width
        # As (b, tokens, heads, dim), so that the projection finds its input contiguous.
        out = query.new_empty(batch, tokens, heads, dim).transpose(1, 2)
        softmax = query.new_empty(step, tokens)
        for item in range(batch):
            for head in range(heads):
                one = query[item, head]
                rows, columns = self._relative(one[None, None], grid)
                one = one * self.scale
                keys = key[item, head].contiguous()
                values = value[item, head].t().contiguous()
                for start in range(0, tokens, step):
                    part = slice(start, min(tokens, start + step))
                    score = product(one[part], keys).view(-1, height, width)
                    score += rows[0, 0, part, :, None]
                    score += columns[0, 0, part, None, :]
                    weight = softmax[: score.shape[0]]
                    torch.softmax(score.view(-1, tokens), -1, out=weight)
                    out[item, head, part] = product(weight, values)
        return out


class FastBlock(nn.Module):
    """Transformer block: attention in windows or over the whole grid, then a perceptron.

    Parameters
    ----------
    block : nn.Module
        ``Block`` of segment_anything or segment_anything_hq, whose parts are taken over under
        the same names.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm1 = cast(nn.Module, block.norm1)
        self.attn = FastAttention(cast(nn.Module, block.attn))
        self.norm2 = cast(nn.Module, block.norm2)
        self.mlp = cast(nn.Module, block.mlp)
        self.window_size = cast(int, block.window_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, h, w, c)`` to the same shape."""
        attended = self._attend(self.norm1(x))
        if torch.is_grad_enabled():
            x = x + attended
            return x + self.mlp(self.norm2(x))
        # Under autocast the sum is to be as precise as the input.
        attended = attended.add_(x) if attended.dtype == x.dtype else attended + x
        flat = attended.view(-1, attended.shape[-1])
        # The hidden layer is four times as wide.
        for part in flat.split(max(1, _BUFFER_BYTES // (16 * flat.shape[1]))):
            part += self._perceive(self.norm2(part))
        return attended

    def _perceive(self, x: Tensor) -> Tensor:
        hidden = apply_linear(cast(nn.Module, self.mlp.lin1), x)
        hidden = cast(nn.Module, self.mlp.act)(hidden)
        return apply_linear(cast(nn.Module, self.mlp.lin2), hidden)

    def _attend(self, x: Tensor) -> Tensor:
        if self.window_size == 0:
            return self.attn(x)
        edge = self.window_size
        batch, height, width, channels = x.shape
        x = functional.pad(x, (0, 0, 0, -width % edge, 0, -height % edge))
        rows, columns = x.shape[1] // edge, x.shape[2] // edge
        x = x.view(batch, rows, edge, columns, edge, channels).transpose(2, 3)
        windows = x.reshape(-1, edge, edge, channels)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            windows = self.attn(windows)
        else:
            # Query, key and value together are three times as large.
            count = max(1, _BUFFER_BYTES // (12 * edge * edge * channels))
            for group in windows.split(count):
                group.copy_(self.attn(group))
        x = windows.view(batch, rows, columns, edge, edge, channels).transpose(2, 3)
        x = x.reshape(batch, rows * edge, columns * edge, channels)
        return x[:, :height, :width].contiguous()


def _offsets(rel_pos: Tensor, size: int) -> Tensor:
    """Embedding of every offset between two positions, ``(size, size, dim)``."""
    if rel_pos.shape[0] != 2 * size - 1:
        stretched = functional.interpolate(
            rel_pos.t()[None], size=2 * size - 1, mode="linear", align_corners=False
        )
        rel_pos = stretched[0].t()
    axis = torch.arange(size, device=rel_pos.device)
    return rel_pos[axis[:, None] - axis[None, :] + size - 1]


def fast_attention(image_encoder: nn.Module) -> nn.Module:
    """Replace the blocks of a SAM ViT encoder by fast ones with the same parameters.

    Parameters
    ----------
    image_encoder : nn.Module
        ``ImageEncoderViT`` of segment_anything or segment_anything_hq; changed in place.

    Returns
    -------
    nn.Module
        The same encoder. Names and values of its state dict are as before.
    """
    blocks = cast(nn.ModuleList, image_encoder.blocks)
    for index, block in enumerate(blocks):
        blocks[index] = FastBlock(block)
    return image_encoder
