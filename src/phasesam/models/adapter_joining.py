"""Two adapters, one on the other, made into one adapter of the base."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from phasesam.core.errors import CheckpointError
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.adapters import adapter_tensors, attach, load_trainable

if TYPE_CHECKING:
    from phasesam.models.adapter_config import AdapterConfig
    from phasesam.models.adapter_loading import AdapterVersion
    from phasesam.models.sam import SamModel

_DOWN, _UP = ".lora_A.", ".lora_B."


def join(
    base: SamModel, lower: AdapterVersion, upper: AdapterVersion
) -> tuple[SamModel, AdapterCard]:
    """Make one adapter of a LoRA on the decoder and the adapter it was trained on.

    Bottlenecks are put side by side; where the lower one has trained the decoder whole, the
    upper one is added to its weights.

    Parameters
    ----------
    base : SamModel
        Of the lower adapter; stays as it is.
    lower : AdapterVersion
        Any adapter of the base; its strength becomes part of the result.
    upper : AdapterVersion
        On `lower`, at full strength: plain LoRA on the decoder.

    Returns
    -------
    SamModel, AdapterCard
        As for `save_adapter`.

    Raises
    ------
    CheckpointError
        If a file is damaged or was written since, or `upper` changes more than the decoder.
    """
    low_model, low = load_trainable(base, lower.path)
    top = read_card(upper.path)
    if top.config.encoder or top.config.decoder != "lora" or top.config.hq != "none":
        raise CheckpointError(f"expected plain LoRA on the decoder only, got {upper.path}")
    added = load_file(upper.path)
    for version in (lower, upper):
        version.refuse_other_content()
    known = _at_strength(base, low_model, low.config, lower.strength)
    config = low.config
    if config.decoder != "full":
        config = replace(
            config, decoder="lora", decoder_rank=_width(low.config) + top.config.decoder_rank
        )
    card = replace(low, config=config, details={**low.details, **top.details})
    model = attach(base, config, len(low.classes))
    with torch.no_grad():
        for name, weight in adapter_tensors(model, config).items():
            if name.startswith("mask_decoder.") and (_DOWN in name or _UP in name):
                weight.copy_(_side_by_side(weight, name, (known, low.config), (added, top.config)))
            else:
                weight.copy_(known[name])
                change = _change(added, name, top.config)
                if change is not None:
                    weight.add_(change.to(weight))
    return model, card


def _width(config: AdapterConfig) -> int:
    """Rank of the bottlenecks that an adapter has in the decoder already."""
    return config.decoder_rank if "lora" in (config.decoder, config.hq) else 0


def _scale(config: AdapterConfig) -> float:
    """Factor of a bottleneck in the decoder."""
    rank = config.decoder_rank
    return config.alpha / (rank**0.5 if config.rslora else rank)


def _at_strength(
    base: SamModel, model: SamModel, config: AdapterConfig, strength: float
) -> dict[str, Tensor]:
    """Tensors of an adapter that does at full strength what this one does at `strength`."""
    originals = dict(base.named_parameters())
    found = {}
    for name, weight in adapter_tensors(model, config).items():
        tensor = weight.detach().cpu()
        whole = originals.get(name.replace(".base_layer.", "."))
        if whole is not None:
            original = whole.detach().cpu()
            tensor = original + strength * (tensor - original)
        elif _UP in name:
            tensor = strength * tensor
        found[name] = tensor
    return found


def _side_by_side(
    like: Tensor, name: str, lower: tuple[Any, AdapterConfig], upper: tuple[Any, AdapterConfig]
) -> Tensor:
    """Fill one half of a wider bottleneck: ranks of the lower adapter first, then of the upper."""
    up = _UP in name
    joined = torch.zeros_like(like) if up else like.detach().clone()
    axis = 1 if up else 0
    rank = like.shape[axis]
    for (tensors, config), start in ((lower, 0), (upper, rank - upper[1].decoder_rank)):
        if name in tensors:
            own = tensors[name].to(joined)
            joined.narrow(axis, start, own.shape[axis]).copy_(
                own * _ratio(config, lower[1], rank, up)
            )
    return joined


def _ratio(config: AdapterConfig, final: AdapterConfig, rank: int, up: bool) -> float:
    """Make up for the other factor of the wider bottleneck."""
    return _scale(config) / _scale(replace(final, decoder_rank=rank)) if up else 1.0


def _change(tensors: dict[str, Tensor], name: str, config: AdapterConfig) -> Tensor | None:
    """Work out what a LoRA adds to a weight that is trained whole; None for others."""
    layer = name.removesuffix(".weight")
    down, up = tensors.get(f"{layer}{_DOWN}weight"), tensors.get(f"{layer}{_UP}weight")
    return None if down is None or up is None else _scale(config) * (up @ down)
