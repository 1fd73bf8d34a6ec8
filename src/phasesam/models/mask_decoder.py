"""SAM's mask decoder for many prompts on one image, with the same weights and numbers.

The reference decoder repeats the 64 x 64 image tokens for each prompt and projects all of
them in every attention. Here (i) what depends on the image alone is computed once
(`ImageContext`), (ii) the projections of the image tokens are moved over to the handful of
prompt tokens, ``(X W) q = X (W q)``, so that 56 columns are multiplied instead of 128 or 256,
(iii) transposed convolutions are matrix products followed by one shuffle of the finished
masks, and (iv) large buffers are kept and written in place, because fresh ones cost a page
fault for every 4 KiB.

Source of the architecture: Kirillov et al., Segment Anything, arXiv 2304.02643;
HQ tail: Ke et al., Segment Anything in High Quality, arXiv 2306.01567.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from phasesam.models.decoder_state import CentredKeys, ImageContext, Workspace

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel


class MultiPromptDecoder:
    """Decode prompts on one image: ``context`` once, then ``tokens`` and ``masks`` per batch.

    Parameters
    ----------
    model : SamModel
        Supplies the weights; it is not changed.
    product_dtype : torch.dtype
        Precision of the products over all image tokens and pixels. With ``bfloat16`` the
        tokens themselves, residuals and norms stay in the precision of the weights.
    """

    def __init__(self, model: SamModel, product_dtype: torch.dtype | None = None) -> None:
        # The parts are those of segment_anything, which carry no types.
        self.model: Any = model
        self.decoder: Any = model.mask_decoder
        weight: torch.Tensor = cast("Any", model.mask_decoder).iou_token.weight
        self.dtype = weight.dtype
        self.product_dtype = product_dtype or self.dtype
        self._product_like = torch.empty(0, dtype=self.product_dtype, device=weight.device)
        transformer: Any = self.decoder.transformer
        self.layers = list(transformer.layers)
        self.final = transformer.final_attn_token_to_image
        self.final_norm = transformer.norm_final_attn
        self.heads: int = transformer.num_heads
        self.workspace = Workspace()
        self._placing: tuple[Tensor, tuple[Tensor, Tensor], Tensor] | None = None
        if len(self.layers) != 2:
            raise ValueError(f"expected a two-layer transformer, got {len(self.layers)} layers")

    @torch.no_grad()
    def context(
        self,
        features: Tensor,
        intermediate: tuple[Tensor, ...] = (),
        dense: Tensor | None = None,
    ) -> ImageContext:
        """Compute what all prompts share.

        Parameters
        ----------
        features : (1, C, side, side) tensor
            The image embedding.
        intermediate : tuple of (1, side, side, width) tensors
            Early encoder features; needed by SAM-HQ only.
        dense : (1, C, side, side) tensor, optional
            Embedding of a mask prompt; SAM's "no mask" when left out.
        """
        prompt_encoder = self.model.prompt_encoder
        if dense is None:
            dense = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        keys = (features + dense).flatten(2)[0].T.contiguous()
        first = self.layers[0]
        to_image, to_token = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        position, position_k, position_q = self._positions(keys.dtype)
        placed = keys + position
        return ImageContext(
            keys=keys,
            first_k=self._split(to_image.k_proj(placed)).contiguous()[None],
            first_v=self._split(to_image.v_proj(keys)).contiguous()[None],
            first_q=to_token.q_proj(placed).to(self.product_dtype),
            position_k=position_k,
            position_q=position_q,
            high_resolution=self._high_resolution(features, intermediate),
        )

    @torch.no_grad()
    def tokens(self, context: ImageContext, sparse: Tensor) -> tuple[Tensor, CentredKeys, Tensor]:
        """Run the transformer.

        Parameters
        ----------
        context : ImageContext
            From `context`.
        sparse : (B, n, C) tensor
            Embedded points and boxes.

        Returns
        -------
        hidden : (B, T, C) tensor
            Output tokens: IoU, masks, (HQ), prompts.
        keys : CentredKeys
            Image tokens; a buffer that the next call overwrites.
        scores : (B, 4) tensor
            Predicted IoU of the single mask and of the three scales.
        """
        start = self._output_tokens().to(sparse.dtype)
        points = torch.cat([start.expand(len(sparse), -1, -1), sparse], dim=1)
        first, second = self.layers

        queries = first.norm1(first.self_attn(points, points, points))
        queries = first.norm2(queries + self._first_attention(context, queries + points))
        queries = first.norm3(queries + first.mlp(queries))
        keys = self._update_keys(first, queries, points, context.first_q, context.keys, None)
        centred = self._centre(keys)

        placed = queries + points
        queries = second.norm1(queries + second.self_attn(placed, placed, queries))
        attended = self._attend(
            second.cross_attn_token_to_image,
            queries + points,
            centred,
            context.position_k[0],
            sharp=True,
        )
        queries = second.norm2(queries + attended)
        queries = second.norm3(queries + second.mlp(queries))
        keys = self._update_keys(second, queries, points, context.position_q, keys, centred)

        centred = self._centre(keys)
        attended = self._attend(
            self.final, queries + points, centred, context.position_k[1], sharp=False
        )
        hidden = self.final_norm(queries + attended)
        return hidden, centred, self.decoder.iou_prediction_head(hidden[:, 0])

    @torch.no_grad()
    def masks(
        self,
        context: ImageContext,
        hidden: Tensor,
        keys: CentredKeys,
        scales: tuple[int, ...],
    ) -> Tensor:
        """Turn tokens into masks.

        Parameters
        ----------
        context : ImageContext
            From `context`.
        hidden, keys
            From `tokens`; prompts may be left out by indexing both.
        scales : tuple of int
            Mask tokens wanted: 0 is the single mask, 1–3 are part, object and group.

        Returns
        -------
        (B, len(scales), 4 x side, 4 x side) tensor
            Logits; a buffer that the next call overwrites.
        """
        weights = torch.stack(
            [self.decoder.output_hypernetworks_mlps[s](hidden[:, 1 + s]) for s in scales], dim=1
        )
        pixels = self._upscale(keys)
        batch, count = len(hidden), pixels.shape[1]
        small = self.workspace.take("masks", (batch, count, len(scales)), pixels)
        torch.bmm(pixels, weights.transpose(1, 2).to(pixels.dtype), out=small)
        logits = self._shuffle(small, "logits", small)
        if context.high_resolution is not None:
            logits = logits + self._high_quality(context, hidden, pixels)
        return logits

    # ---- image tokens -------------------------------------------------------------------

    def _output_tokens(self) -> Tensor:
        parts = [self.decoder.iou_token.weight, self.decoder.mask_tokens.weight]
        if self.model.is_hq:
            parts.append(self.decoder.hf_token.weight)
        return torch.cat(parts, dim=0)[None]

    def _split(self, x: Tensor) -> Tensor:
        """Separate heads: (..., n, D) -> (..., H, n, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _positions(self, dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Compute what depends on neither image nor prompts, once."""
        if self._placing is None:
            second = self.layers[1]
            dense = self.model.prompt_encoder.get_dense_pe()
            position = dense.flatten(2)[0].T.to(dtype)
            self._placing = (
                position,
                (
                    self._position_keys(second.cross_attn_token_to_image, position),
                    self._position_keys(self.final, position),
                ),
                second.cross_attn_image_to_token.q_proj(position).to(self.product_dtype),
            )
        return self._placing

    def _position_keys(self, attention: Any, position: Tensor) -> Tensor:
        # The bias of the key projection shifts all scores of a query alike: softmax drops it.
        projected = F.linear(position, attention.k_proj.weight)
        return self._split(projected).transpose(-2, -1).contiguous()

    def _first_attention(self, context: ImageContext, placed: Tensor) -> Tensor:
        """Tokens attend to the image, which no prompt has touched yet: one shared product."""
        attention = self.layers[0].cross_attn_token_to_image
        batch, count, _ = placed.shape
        q = self._split(attention.q_proj(placed).flatten(0, 1))[None]
        out = F.scaled_dot_product_attention(q, context.first_k, context.first_v)
        merged = out[0].transpose(0, 1).reshape(batch, count, -1)
        return attention.out_proj(merged)

    def _attend(
        self,
        attention: Any,
        placed: Tensor,
        centred: CentredKeys,
        position_k: Tensor,
        *,
        sharp: bool,
    ) -> Tensor:
        """Tokens attend to the image tokens of their own prompt, (B, T, C) -> (B, T, C)."""
        batch, count, channels = placed.shape
        q = self._split(attention.q_proj(placed))
        q = q * q.shape[-1] ** -0.5
        # These scores decide which object is meant; rounded, they shift the predicted IoU.
        keys = centred.exact if sharp else centred.offsets
        size = (batch, self.heads, count, keys.shape[1])
        scores = self.workspace.take("sharp" if sharp else "scores", size, keys)
        torch.matmul(q.to(keys.dtype), position_k.to(keys.dtype), out=scores)
        key_weight = attention.k_proj.weight.unflatten(0, (self.heads, -1))
        folded = torch.matmul(q, key_weight).flatten(1, 2)
        flat = scores.flatten(1, 2)
        flat.baddbmm_(folded.to(keys.dtype), keys.transpose(1, 2))
        torch.softmax(flat, dim=-1, out=flat)
        weights = self.workspace.take("scores", tuple(flat.shape), centred.offsets).copy_(flat)
        # The weights sum to one: adding the mean after gathering the offsets is exact.
        gathered = torch.bmm(weights, centred.offsets).to(q.dtype) + centred.mean
        gathered = gathered.view(batch, self.heads, count, channels)
        value_weight = attention.v_proj.weight.unflatten(0, (self.heads, -1))
        values = torch.matmul(gathered, value_weight.transpose(1, 2))
        merged = values.transpose(1, 2).flatten(2) + attention.v_proj.bias
        return attention.out_proj(merged)

    def _update_keys(
        self,
        layer: Any,
        queries: Tensor,
        points: Tensor,
        position_q: Tensor,
        keys: Tensor,
        centred: CentredKeys | None,
    ) -> Tensor:
        """Image tokens attend to the prompt tokens, then norm: (N, C) or (B, N, C) -> (B, N, C).

        Without `centred`, `position_q` holds the whole queries of the image tokens, else the
        position part only.
        """
        attention = layer.cross_attn_image_to_token
        batch, count, channels = queries.shape
        k = self._split(attention.k_proj(queries + points))
        # Softmax over the tokens ignores what they share; smaller numbers round less.
        k = (k - k.mean(dim=2, keepdim=True)) * k.shape[-1] ** -0.5
        v = self._split(attention.v_proj(queries))
        out_weight = attention.out_proj.weight.T.unflatten(0, (self.heads, -1))
        # Each head's attention sums to one, so an equal share of the bias in every row is exact.
        values = torch.matmul(v, out_weight) + attention.out_proj.bias / self.heads

        columns, rows = self.heads * count, position_q.shape[0]
        scores = self.workspace.take("scores", (batch, columns, rows), position_q)
        blocks = self._block_diagonal(k).to(position_q.dtype)
        torch.mm(blocks, position_q.T, out=scores.view(batch * columns, rows))
        if centred is not None:
            query_weight = attention.q_proj.weight.unflatten(0, (self.heads, -1))
            folded = torch.matmul(k, query_weight).flatten(1, 2)
            scores.baddbmm_(folded.to(scores.dtype), centred.offsets.transpose(1, 2))
            scores += torch.matmul(folded, centred.mean.transpose(1, 2))
        # Softmax over the tokens of each head; the long axis stays innermost, which vectorises.
        grouped = scores.view(batch, self.heads, count, rows)
        torch.softmax(grouped, dim=2, out=grouped)
        update = self.workspace.take("update", (batch, rows, channels), scores)
        torch.bmm(scores.transpose(1, 2), values.flatten(1, 2).to(scores.dtype), out=update)
        total = self.workspace.take("total", (batch, rows, channels), queries)
        total.copy_(update).add_(keys)
        norm = layer.norm4
        return F.layer_norm(total, (channels,), norm.weight, norm.bias, norm.eps)

    def _centre(self, keys: Tensor) -> CentredKeys:
        """Split image tokens into mean and offsets, the latter in the product precision."""
        mean = keys.mean(dim=1, keepdim=True)
        exact = self.workspace.take("total", tuple(keys.shape), keys)
        torch.sub(keys, mean, out=exact)
        if self.product_dtype == keys.dtype:
            return CentredKeys(exact, mean, exact)
        offsets = self.workspace.take("offsets", tuple(keys.shape), self._product_like)
        return CentredKeys(offsets.copy_(exact), mean, exact)

    @staticmethod
    def _block_diagonal(k: Tensor) -> Tensor:
        """Put heads beside each other: (B, H, T, w) -> (B H T, H w), zero between heads."""
        batch, heads, count, width = k.shape
        blocks = k.new_zeros(batch, heads, count, heads, width)
        index = torch.arange(heads, device=k.device)
        blocks[:, index, :, index] = k.transpose(0, 1)
        return blocks.view(batch * heads * count, heads * width)

    # ---- pixels -------------------------------------------------------------------------

    def _upscale(self, keys: CentredKeys) -> Tensor:
        """Double twice: (B, N, C) -> (B, 16 N, C / 8), pixels in nested 2 x 2 order."""
        first, norm, activation, second, last = self.decoder.output_upscaling
        batch, tokens, _ = keys.offsets.shape
        weight = first.weight.permute(0, 2, 3, 1).flatten(1)
        bias = torch.matmul(keys.mean, weight) + first.bias.repeat(4)
        half = self._product(keys.offsets, weight, bias, "half")
        flat = half.view(-1, first.out_channels)
        flat = F.layer_norm(flat, (flat.shape[1],), norm.weight, norm.bias, norm.eps)
        self._activate(activation, flat)
        weight = second.weight.permute(0, 2, 3, 1).flatten(1)
        full = self._product(flat, weight, second.bias.repeat(4), "full")
        pixels = full.view(batch, 16 * tokens, second.out_channels)
        self._activate(last, pixels)
        return pixels

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor, name: str) -> Tensor:
        """``x @ weight + bias``, multiplied in the product precision, added in full precision."""
        low = self._product_like
        shape = (*x.shape[:-1], weight.shape[1])
        multiplied = self.workspace.take("low" if low.dtype != self.dtype else name, shape, low)
        torch.matmul(x.to(low.dtype), weight.to(low.dtype), out=multiplied)
        if low.dtype != self.dtype:
            # The stability score is a count near zero: a rounded bias would shift it.
            multiplied = self.workspace.take(name, shape, weight).copy_(multiplied)
        return multiplied.add_(bias)

    @staticmethod
    def _activate(activation: Any, x: Tensor) -> None:
        torch.ops.aten.gelu_(x, approximate=activation.approximate)

    def _shuffle(self, small: Tensor, name: str, like: Tensor) -> Tensor:
        """Undo the nested order: (B, 16 N, m) -> (B, m, 4 side, 4 side) in the dtype of `like`."""
        batch, _, maps = small.shape
        side = self.model.embed_size
        nested = small.view(batch, side, side, 2, 2, 2, 2, maps)
        ordered = nested.permute(0, 7, 1, 3, 5, 2, 4, 6)
        out = self.workspace.take(name, (batch, maps, 4 * side, 4 * side), like)
        out.view(ordered.shape).copy_(ordered)
        return out

    # ---- SAM-HQ -------------------------------------------------------------------------

    def _high_resolution(self, features: Tensor, intermediate: tuple[Tensor, ...]) -> Tensor | None:
        if not self.model.is_hq:
            return None
        early = intermediate[0].permute(0, 3, 1, 2).to(features.dtype)
        return self.decoder.embedding_encoder(features) + self.decoder.compress_vit_feat(early)

    def _high_quality(self, context: ImageContext, hidden: Tensor, pixels: Tensor) -> Tensor:
        """Logits of the HQ token, (B, 1, 4 side, 4 side)."""
        token = 1 + self.decoder.num_mask_tokens - 1
        weights = self.decoder.hf_mlp(hidden[:, token])
        # The convolutions of the tail stay in the precision of the weights.
        upscaled = self._shuffle(pixels, "hq_pixels", weights)
        fused = self.decoder.embedding_maskfeature(upscaled) + context.high_resolution
        return torch.einsum("bc,bchw->bhw", weights, fused)[:, None]
