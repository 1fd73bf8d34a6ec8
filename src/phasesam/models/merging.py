"""Adapters folded into the weights: no extra work in inference, at any strength from 0 to 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError
from phasesam.models.adapters import ADAPTER_NAME, adapter_tensors
from phasesam.models.conv_lora import ConvLoraLinear

if TYPE_CHECKING:
    from phasesam.models.adapter_config import AdapterConfig
    from phasesam.models.sam import SamModel


@dataclass(frozen=True)
class _Blend:
    """A weight of its own, the base's weight, and how far the adapter moves it."""

    weight: nn.Parameter
    base: Tensor
    change: Callable[[], Tensor]


class FoldedAdapter:
    """Fold what can be folded of an adapter into its model, in place.

    Plain LoRA becomes part of the weights of its layers; weights trained in full are blended
    with those of the base (Wortsman et al., arXiv 2109.01903). Conv-LoRA mixes tokens and stays
    a layer of its own, whose output is scaled. Class tokens are the same at any strength.

    Parameters
    ----------
    model : SamModel
        From `phasesam.models.adapters`, not needed for training any more.
    base : SamModel
        What it was attached to; stays as it is.
    config : AdapterConfig
        Of the adapter.
    strength : float
        See `set_strength`.
    """

    def __init__(
        self, model: SamModel, base: SamModel, config: AdapterConfig, strength: float = 1.0
    ) -> None:
        self.model = model
        self.strength = strength
        self._blends: list[_Blend] = []
        self._layers: list[tuple[LoraLayer, float]] = []
        originals = dict(base.named_parameters())
        for name, weight in adapter_tensors(model, config).items():
            if name in originals:
                moved = weight.detach() - originals[name].detach()
                self._blends.append(_Blend(weight, originals[name].detach(), moved.clone))
        for name, layer in list(model.named_modules()):
            if isinstance(layer, ConvLoraLinear):
                self._layers.append((layer, layer.scaling[ADAPTER_NAME]))
            elif isinstance(layer, LoraLayer):
                self._fold(name, layer)
        model.requires_grad_(False).eval()
        self.set_strength(strength)

    def _fold(self, name: str, layer: LoraLayer) -> None:
        """Put a plain layer with a weight of its own in the place of a LoRA layer."""
        original = cast(Any, layer).base_layer
        kept = [*original.parameters(), *original.buffers()]
        plain = copy.deepcopy(original, {id(tensor): tensor for tensor in kept})
        plain.weight = nn.Parameter(original.weight.detach().clone())
        parent, _, child = name.rpartition(".")
        setattr(self.model.get_submodule(parent), child, plain)
        change = cast(Any, layer).get_delta_weight
        self._blends.append(
            _Blend(plain.weight, original.weight.detach(), lambda: change(ADAPTER_NAME))
        )

    @torch.no_grad()
    def set_strength(self, strength: float) -> None:
        """Choose how much of the adapter acts: 0 the base, 1 all of it.

        Raises
        ------
        InvalidSettingError
            If it is not within 0–1.
        """
        if not 0 <= strength <= 1:
            raise InvalidSettingError(f"the strength must be within 0–1, got {strength}")
        for blend in self._blends:
            blend.weight.copy_(blend.base + strength * blend.change())
        for layer, scaling in self._layers:
            layer.scaling[ADAPTER_NAME] = strength * scaling
        self.strength = strength


def merge(model: SamModel, base: SamModel, config: AdapterConfig) -> SamModel:
    """Make an ordinary model of a base and its adapter.

    Parameters
    ----------
    model, base, config
        As in `FoldedAdapter`; `model` is changed.

    Returns
    -------
    SamModel
        With the parameter names of the base, so that other tools load its weights.

    Raises
    ------
    InvalidSettingError
        If the adapter is a Conv-LoRA, or has class tokens, for which other tools have no place.
    """
    if not config.mergeable:
        raise InvalidSettingError(
            "Conv-LoRA cannot be merged: what a token gets depends on its neighbours. "
            "Use the adapter file itself, or train with plain LoRA"
        )
    if model.class_decoder is not None:
        raise InvalidSettingError(
            "an adapter with class tokens cannot be merged: other tools have no place for them"
        )
    FoldedAdapter(model, base, config)
    return model
