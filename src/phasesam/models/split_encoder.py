"""The image encoder cut in two: what no adapter of a kind changes, and the rest.

The first part gives the same for the base and every adapter, so training runs it once for each
picture and keeps what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from phasesam.models.adapter_config import encoder_layers
from phasesam.models.sam import EncoderOutput

if TYPE_CHECKING:
    from phasesam.models.adapter_config import AdapterConfig
    from phasesam.models.sam import SamModel


@dataclass(frozen=True)
class FrozenFeatures:
    """What the frozen part of the encoder makes of pictures.

    Attributes
    ----------
    activation : Tensor
        Input of the first block (b, 64, 64, c) or stage (b, c, h, w) that is adapted, or the
        embedding (b, c, 64, 64) where the encoder is not adapted at all.
    intermediate : tuple of Tensor
        As in `EncoderOutput`, where the frozen part makes it.
    """

    activation: Tensor
    intermediate: tuple[Tensor, ...] = ()

    def to(self, device: torch.device | str, dtype: torch.dtype) -> FrozenFeatures:
        """Copy to a device and a precision."""
        return FrozenFeatures(
            self.activation.to(device, dtype),
            tuple(tensor.to(device, dtype) for tensor in self.intermediate),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.activation, *self.intermediate))


class SplitEncoder:
    """The encoder of an adapted model, in two parts.

    Parameters
    ----------
    model : SamModel
        From `phasesam.models.adapters.attach`.
    config : AdapterConfig
        The same as there.

    Attributes
    ----------
    cut : int or None
        Index of the first block (ViT) or stage (TinyViT) that is adapted; None when none is.
    """

    def __init__(self, model: SamModel, config: AdapterConfig) -> None:
        self.model = model
        encoder: Any = model.image_encoder
        self._is_vit = hasattr(encoder, "blocks")
        indices = [int(name.split(".")[2]) for name in encoder_layers(model, config)]
        self.cut = min(indices) if indices else None

    @torch.no_grad()
    def frozen(self, x: Tensor) -> FrozenFeatures:
        """Run the frozen part.

        Parameters
        ----------
        x : (b, 3, 1024, 1024) tensor
            What `SamModel.preprocess` returns.
        """
        if self.cut is None:
            output = self.model.encode(x)
            return FrozenFeatures(output.features, output.intermediate)
        encoder: Any = self.model.image_encoder
        x = encoder.patch_embed(x.to(next(encoder.parameters()).dtype))
        if self._is_vit and encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        x, intermediate = self._through(x, 0, self.cut)
        return FrozenFeatures(x.contiguous(), intermediate)

    def trained(self, features: FrozenFeatures) -> EncoderOutput:
        """Run the rest, with gradients where they are enabled.

        Parameters
        ----------
        features : FrozenFeatures
            From `frozen`; left as they are.
        """
        if self.cut is None:
            return EncoderOutput(features.activation, features.intermediate)
        encoder: Any = self.model.image_encoder
        # Without gradients the blocks write into what they are given.
        x = features.activation if torch.is_grad_enabled() else features.activation.clone()
        x, intermediate = self._through(x, self.cut, None)
        if self._is_vit:
            x = x.permute(0, 3, 1, 2)
        return EncoderOutput(encoder.neck(x).contiguous(), features.intermediate or intermediate)

    def _through(
        self, x: Tensor, start: int, stop: int | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run some blocks or stages; also pick SAM-HQ's early features where they pass."""
        encoder: Any = self.model.image_encoder
        layers = cast(Any, encoder.blocks if self._is_vit else encoder.layers)
        intermediate: tuple[Tensor, ...] = ()
        for index in range(start, len(layers) if stop is None else stop):
            x = layers[index](x)
            if self.model.is_hq and not intermediate and self._is_early_output(index, layers):
                early = x if self._is_vit else x.permute(0, 2, 3, 1)
                # Cloned, because the next block may write into it.
                intermediate = (early.clone(),)
        return x, intermediate

    def _is_early_output(self, index: int, layers: Any) -> bool:
        """Whether SAM-HQ's decoder wants what this layer gives."""
        if not self._is_vit:
            return index == 1
        return index == next((i for i, layer in enumerate(layers) if layer.window_size == 0), -1)
