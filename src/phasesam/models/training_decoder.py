"""The mask decoder with gradients: the same weights and numbers, less memory and time.

The published decoder adds positions to 4096 image tokens of every object before each projection,
and turns tokens into pictures whose memory layout changes from layer to layer. Here positions are
projected once for all objects, what objects share is computed once, and pixels stay rows of
channels, in nested 2 x 2 order, until only the finished masks are left to sort.

Without gradients `phasesam.models.mask_decoder` is faster still.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from phasesam.models.products import apply_linear, product


def transform(
    decoder: Any, keys: Tensor, position: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer.

    Parameters
    ----------
    decoder : nn.Module
        SAM's mask decoder, with or without adapters.
    keys : (m, n_pixels, c) tensor
        Image tokens; ``m`` is the number of prompts, or 1 where all prompts share them.
    position : (1, n_pixels, c) tensor
        Their positions.
    tokens : (m, t, c) tensor
        Output tokens and embedded prompts.

    Returns
    -------
    hidden : (m, t, c) tensor
        The tokens after it.
    keys : (m, n_pixels, c) tensor
        The image tokens after it.
    """
    transformer = decoder.transformer
    keys, position = _lower(keys), _lower(position)
    queries = tokens
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(q=queries, k=queries, v=queries)
        else:
            placed = queries + tokens
            queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
        queries = layer.norm1(queries)
        attended = _to_image(layer.cross_attn_token_to_image, queries + tokens, keys, position)
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        update = _to_tokens(
            layer.cross_attn_image_to_token, keys, position, queries + tokens, queries
        )
        keys = layer.norm4(keys + update).to(keys.dtype)
    final = transformer.final_attn_token_to_image
    queries = queries + _to_image(final, queries + tokens, keys, position)
    return transformer.norm_final_attn(queries), keys


def upscale(decoder: Any, keys: Tensor) -> Tensor:
    """Make 16 pixels of every image token.

    Parameters
    ----------
    decoder : nn.Module
        SAM's mask decoder.
    keys : (m, n_pixels, c) tensor
        From `transform`.

    Returns
    -------
    (m, 16 n_pixels, c / 8) tensor
        In nested order: those of a token follow each other, 2 x 2 quarters of 2 x 2 pixels.
    """
    first, norm, activation, second, last = decoder.output_upscaling
    half = _doubled(first, keys).unflatten(-1, (4, -1)).flatten(1, 2)
    half = functional.layer_norm(half, half.shape[-1:], norm.weight, norm.bias, norm.eps)
    full = last(_doubled(second, activation(half)))
    return full.unflatten(-1, (4, -1)).flatten(1, 2)


def sorted_pixels(nested: Tensor, side: int) -> Tensor:
    """Bring pixels from nested order into that of an image.

    Parameters
    ----------
    nested : (m, 16 side ** 2, k) tensor
        From `upscale`, or a product of it.
    side : int
        Image tokens along a side.

    Returns
    -------
    (m, k, 4 side, 4 side) tensor
        Channels last in memory.
    """
    count, _, channels = nested.shape
    grid = nested.view(count, side, side, 2, 2, 2, 2, channels)
    grid = grid.permute(0, 1, 3, 5, 2, 4, 6, 7)
    return grid.reshape(count, 4 * side, 4 * side, channels).permute(0, 3, 1, 2)


def predict_masks(
    decoder: Any,
    features: Tensor,
    position: Tensor,
    prompts: tuple[Tensor, Tensor | None, Tensor],
    scales: slice,
) -> tuple[Tensor, Tensor]:
    """Answer prompts on one image.

    Parameters
    ----------
    decoder : nn.Module
        SAM's mask decoder, not SAM-HQ's.
    features : (1, c, side, side) tensor
        The image embedding.
    position : (1, c, side, side) tensor
        Its positions.
    prompts : (sparse, dense, none) tensors
        Embedded points and boxes (n, p, c); embedded masks (n, c, side, side), or None; and
        what stands for no mask, (1, c).
    scales : slice
        Masks wanted: 0 is the single one, 1–3 those of an ambiguous prompt.

    Returns
    -------
    masks : (n, k, 4 side, 4 side) tensor
        Logits of the masks wanted.
    scores : (n, 4) tensor
        Predicted IoU of all.
    """
    sparse, dense, none = prompts
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], 1)
    placed = features + (none[..., None, None] if dense is None else dense)
    hidden, keys = transform(decoder, as_rows(placed), as_rows(position), tokens)
    networks = list(decoder.output_hypernetworks_mlps)[scales]
    chosen = hidden[:, 1 : 1 + decoder.num_mask_tokens][:, scales]
    weights = torch.stack([net(chosen[:, i]) for i, net in enumerate(networks)], 1)
    pixels = upscale(decoder, keys)
    nested = torch.bmm(pixels, weights.transpose(1, 2).to(pixels.dtype))
    masks = sorted_pixels(nested, features.shape[-1]).contiguous()
    return masks, decoder.iou_prediction_head(hidden[:, 0])


def as_rows(picture: Tensor) -> Tensor:
    """Lay out ``(m, c, h, w)`` as tokens ``(m, h * w, c)``."""
    return picture.flatten(2).transpose(1, 2)


def _lower(x: Tensor) -> Tensor:
    """Cast to the precision of products under autocast: image tokens are what takes memory."""
    kind = x.device.type
    if kind == "cpu" and torch.is_autocast_enabled(kind):
        return x.to(torch.get_autocast_dtype(kind))
    return x


def _to_image(attention: Any, placed: Tensor, keys: Tensor, position: Tensor) -> Tensor:
    """Tokens (m, t, c) attend to image tokens."""
    count, length, _ = placed.shape
    # The bias of the key projection is in it twice; softmax ignores what all keys share.
    k = _heads(
        attention, apply_linear(attention.k_proj, keys) + apply_linear(attention.k_proj, position)
    )
    v = _heads(attention, apply_linear(attention.v_proj, keys))
    q = attention.q_proj(placed)
    shared = len(keys) == 1
    q = _heads(attention, (q.flatten(0, 1)[None] if shared else q).to(k.dtype))
    out = _attend(q, k, v)
    merged = out.transpose(1, 2).flatten(2)
    return attention.out_proj(merged.view(count, length, -1) if shared else merged)


def _to_tokens(
    attention: Any, keys: Tensor, position: Tensor, placed: Tensor, queries: Tensor
) -> Tensor:
    """Image tokens attend to tokens (m, t, c)."""
    where = apply_linear(attention.q_proj, position) - attention.q_proj.bias
    q = apply_linear(attention.q_proj, keys) + where.to(keys.dtype)
    q = _heads(attention, q.expand(len(placed), -1, -1))
    k, v = (
        _heads(attention, projection(tokens).to(q.dtype))
        for projection, tokens in ((attention.k_proj, placed), (attention.v_proj, queries))
    )
    out = _attend(q, k, v)
    return apply_linear(attention.out_proj, out.transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend between a picture and some tokens, (m, heads, n, d)."""
    if q.device.type == "cuda":
        return functional.scaled_dot_product_attention(q, k, v)
    # On processors, fused attention is slow to differentiate where one side has few tokens, and
    # softmax is fast where the longer side lies in a row.
    scale = q.shape[-1] ** -0.5
    if q.shape[-2] > k.shape[-2]:
        scores = torch.matmul(k * scale, q.transpose(-2, -1))
        return torch.matmul(_softmax(scores, -2).transpose(-2, -1), v)
    return torch.matmul(_softmax(torch.matmul(q * scale, k.transpose(-2, -1)), -1), v)


def _softmax(scores: Tensor, dim: int) -> Tensor:
    return scores.softmax(dim, torch.float32).to(scores.dtype)


def _heads(attention: Any, x: Tensor) -> Tensor:
    """Separate heads: (m, n, d) -> (m, heads, n, d / heads)."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _doubled(layer: Any, x: Tensor) -> Tensor:
    """Make 2 x 2 pixels of each: a transposed convolution without overlap is a product."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return product(x, weight, layer.bias.repeat(4))
