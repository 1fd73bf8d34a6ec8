"""Adapters folded into the weights: no extra work in inference, at any strength from 0 to 1."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import StopCallback
from phasesam.formats.atomic import atomic_file
from phasesam.models.adapter_store import get_adapter
from phasesam.models.adapters import ADAPTER_NAME, adapter_tensors, load_trainable, read_card
from phasesam.models.conv_lora import ConvLoraLinear
from phasesam.models.registry import get_spec

_IMAGENET_CLASSES, _TINY_WIDTH = 1000, 320

if TYPE_CHECKING:
    from phasesam.models.adapter_config import AdapterConfig
    from phasesam.models.model_spec import ModelSpec
    from phasesam.models.sam import SamModel

MERGED_SUFFIXES = (".safetensors", ".pth", ".pt")


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
            # Weights that were trained whole may lie under a LoRA, whose blend builds on theirs.
            original = originals.get(name.replace(".base_layer.", "."))
            if original is not None:
                moved = weight.detach() - original.detach()
                self._blends.append(_Blend(weight, original.detach(), moved.clone))
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


def merge(
    model: SamModel, base: SamModel, config: AdapterConfig, strength: float = 1.0
) -> SamModel:
    """Make an ordinary model of a base and its adapter.

    Parameters
    ----------
    model, base, config, strength
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
    _check_mergeable(config, model.class_decoder is not None)
    FoldedAdapter(model, base, config, strength)
    return model


def _check_mergeable(config: AdapterConfig, has_classes: bool) -> None:
    if not config.mergeable:
        raise InvalidSettingError(
            "Conv-LoRA cannot be merged: what a token gets depends on its neighbours. "
            "Use the adapter file itself, or train with plain LoRA"
        )
    if has_classes:
        raise InvalidSettingError(
            "an adapter with class tokens cannot be merged: other tools have no place for them"
        )


def _classifier() -> dict[str, Tensor]:
    """Weights that other tools want in a MobileSAM, and never use: TinyViT's own classifier."""
    head = "image_encoder.head", "image_encoder.norm_head"
    return {
        f"{head[0]}.weight": torch.zeros(_IMAGENET_CLASSES, _TINY_WIDTH),
        f"{head[0]}.bias": torch.zeros(_IMAGENET_CLASSES),
        f"{head[1]}.weight": torch.ones(_TINY_WIDTH),
        f"{head[1]}.bias": torch.zeros(_TINY_WIDTH),
    }


def save_merged(
    adapter: str | os.PathLike[str],
    path: Path,
    *,
    base: str | None = None,
    strength: float = 1.0,
    should_stop: StopCallback | None = None,
) -> ModelSpec:
    """Write a base and its adapter as one checkpoint for other tools, completely or not at all.

    Parameters
    ----------
    adapter : str or path
        Name in the store of adapters, or path.
    path : Path
        File to write: ``.safetensors``, or ``.pth`` and ``.pt`` as torch saves a state dict.
    base : str, optional
        Name of the base in the registry, where it is another one than the adapter names.
    strength : float
        How much of the adapter, 0–1.
    should_stop : callable, optional
        Asked while the weights of the base are fetched.

    Returns
    -------
    ModelSpec
        The base; the checkpoint has its architecture.

    Raises
    ------
    InvalidSettingError
        As `merge`; or if the ending is another one, or the strength is not within 0–1.
    ModelError
        If the adapter or its base cannot be had, or do not fit.
    SaveError
        If the checkpoint cannot be written; an older file stays.
    """
    from phasesam.models.sam import build_model

    if path.suffix.lower() not in MERGED_SUFFIXES:
        raise InvalidSettingError(
            f"a checkpoint is called {', '.join('*' + end for end in MERGED_SUFFIXES)}, "
            f"got {path.name}"
        )
    if not 0 <= strength <= 1:
        raise InvalidSettingError(f"the strength must be within 0–1, got {strength}")
    source = get_adapter(adapter).path
    card = read_card(source)
    _check_mergeable(card.config, bool(card.classes))
    spec = get_spec(base or card.base)
    original = build_model(spec, should_stop=should_stop)
    model, card = load_trainable(original, source)
    state = merge(model, original, card.config, strength).state_dict()
    if spec.architecture == "vit_tiny":
        state |= _classifier()
    with atomic_file(path) as file:
        if path.suffix.lower() == ".safetensors":
            file.write(to_bytes(state, {"format": "pt"}))
        else:
            torch.save(state, file)
    return spec
