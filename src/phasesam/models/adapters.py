"""Adapters on a SAM: attach, save, load, merge. The only file that reads or writes an adapter.

LoRA after Hu et al. (arXiv 2106.09685) through peft. An adapter is one safetensors file; its
header holds a card in JSON that says which base it belongs to and how it was made. Names and
shapes of all tensors must be exactly those that the card's settings mean: nothing that an
adapter holds is left out in silence, as peft does with layers it does not know.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from phasesam.core.errors import CheckpointError, InvalidSettingError
from phasesam.formats.atomic import atomic_file
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.adapter_config import AdapterConfig, decoder_layers, encoder_layers, hq_layers
from phasesam.models.class_decoder import ClassDecoder
from phasesam.models.conv_lora import ConvLoraLinear
from phasesam.models.one_product import OneProductLinear
from phasesam.models.query_value import QueryValueLinear

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel

__all__ = [
    "ADAPTER_NAME",
    "AdapterCard",
    "adapter_tensors",
    "attach",
    "load_trainable",
    "read_card",
    "read_weights",
    "save_adapter",
    "share",
    "weights_hash",
]

ADAPTER_NAME = "default"
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def share(base: SamModel) -> SamModel:
    """Copy the structure of a model; all weights are those of the original, not copies."""
    memo: dict[int, Any] = {id(t): t for t in (*base.parameters(), *base.buffers())}
    for module in base.modules():
        # Who listens to the original for a while does not listen to the copy for ever.
        for name in _HOOKS:
            memo[id(getattr(module, name))] = OrderedDict()
    return copy.deepcopy(base, memo)


def attach(base: SamModel, config: AdapterConfig, n_classes: int = 0, seed: int = 0) -> SamModel:
    """Put a new adapter on a base.

    Parameters
    ----------
    base : SamModel
        Stays as it is; the result shares its frozen weights.
    config : AdapterConfig
        What to adapt.
    n_classes : int
        Classes of a `ClassDecoder`; 0 for none.
    seed : int
        Of the random numbers that the adapter starts with.

    Returns
    -------
    SamModel
        Computes what the base computes; only the adapter requires gradients.

    Raises
    ------
    InvalidSettingError
        If the model has no such layers.
    """
    model = share(base)
    names = dict.fromkeys(encoder_layers(model, config), config.rank)
    if config.decoder == "lora":
        names |= dict.fromkeys(decoder_layers(model), config.decoder_rank)
    if config.hq == "lora":
        names |= dict.fromkeys(hq_layers(model), config.decoder_rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if names:
            _inject(model, config, names)
        for part in _full_parts(model, config):
            _own(part)
        model.class_decoder = (
            ClassDecoder(model.mask_decoder, n_classes, seed, detail=config.detail)
            if n_classes
            else None
        )
        if model.class_decoder is not None:
            model.class_decoder.add_hints(
                model.prompt_encoder, config.ratio, boxes=config.class_boxes
            )
    model.requires_grad_(False)
    trained = adapter_tensors(model, config)
    if not trained:
        raise InvalidSettingError(
            f"{base.spec.title} has nothing that the adapter would change; only SAM-HQ has a part "
            "of its own"
        )
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return model


def adapter_tensors(model: SamModel, config: AdapterConfig) -> dict[str, nn.Parameter]:
    """Find what an adapter adds or trains, by name.

    Parameters
    ----------
    model : SamModel
        From `attach`.
    config : AdapterConfig
        The same as there.

    Returns
    -------
    dict of str to Parameter
        Names as in an adapter file.
    """
    full = {id(p) for part in _full_parts(model, config) for p in part.parameters()}
    if model.class_decoder is not None:
        full |= {id(p) for p in model.class_decoder.parameters()}
    # Below there may be a Conv-LoRA that stays a layer of its own; it is not part of this adapter.
    where = "" if config.encoder else "mask_decoder."
    return {
        name.replace(f".{ADAPTER_NAME}", ""): parameter
        for name, parameter in model.named_parameters()
        if id(parameter) in full or (".lora_" in name and name.startswith(where))
    }


def _inject(model: SamModel, config: AdapterConfig, ranks: Mapping[str, int]) -> None:
    """Let peft wrap the layers named in `ranks`."""
    # Typed loosely: scales may be fractions, and the gate is ours.
    settings: Any = LoraConfig(
        r=config.rank,
        lora_alpha=cast(Any, config.alpha),
        use_rslora=config.rslora,
        lora_dropout=config.dropout,
        target_modules=list(ranks),
        rank_pattern={name.replace(".", r"\."): rank for name, rank in ranks.items()},
    )
    settings.phasesam_gate = config.gate

    def wrap(target: nn.Module, adapter_name: str, **kwargs: Any) -> nn.Module | None:
        name = kwargs["target_name"]
        in_encoder = name.startswith("image_encoder.")
        if in_encoder and config.method == "conv_lora":
            return ConvLoraLinear(target, adapter_name, **kwargs)
        if in_encoder and name.endswith("qkv") and "qv" in config.encoder:
            return QueryValueLinear(target, adapter_name, **kwargs)
        return OneProductLinear(target, adapter_name, **kwargs)

    settings._register_custom_module({nn.Linear: wrap})
    # Of an adapter below, which is part of the model by now.
    model.__dict__.pop("peft_config", None)
    inject_adapter_in_model(settings, model, ADAPTER_NAME)


def _full_parts(model: SamModel, config: AdapterConfig) -> list[nn.Module]:
    """Modules that are trained with all their weights."""
    decoder: Any = model.mask_decoder
    parts: list[nn.Module] = []
    if config.decoder == "full":
        parts.append(decoder)
    if config.iou_head:
        parts.append(decoder.iou_prediction_head)
    if config.hq == "full" and model.is_hq:
        names = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder",
                 "embedding_maskfeature")  # fmt: skip
        parts += [getattr(decoder, name) for name in names]
    return parts


def _own(part: nn.Module) -> None:
    """Give a part weights of its own instead of those of the base."""
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))


# Files


def weights_hash(model: nn.Module) -> str:
    """Fingerprint all weights of a model: SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def save_adapter(model: SamModel, card: AdapterCard, path: Path) -> None:
    """Write an adapter and its card into one file, completely or not at all.

    Parameters
    ----------
    model : SamModel
        From `attach` or `load_trainable`.
    card : AdapterCard
        Stored in the header of the file.
    path : Path
        File to write, ``.safetensors``.

    Raises
    ------
    SaveError
        If it cannot be written; the old file stays.
    """
    tensors = {
        name: tensor.detach().to("cpu").contiguous().clone()
        for name, tensor in adapter_tensors(model, card.config).items()
    }
    content = to_bytes(tensors, {"card": card.to_json()})
    with atomic_file(path) as file:
        file.write(content)


def load_trainable(
    base: SamModel, path: Path, base_hash: str | None = None
) -> tuple[SamModel, AdapterCard]:
    """Put an adapter from a file on its base, ready to be trained further.

    Parameters
    ----------
    base : SamModel
        The very model it was made for.
    path : Path
        File that `save_adapter` wrote.
    base_hash : str, optional
        `weights_hash` of the base, where it is known already.

    Returns
    -------
    SamModel, AdapterCard
        As from `attach`, and what the file says about itself.

    Raises
    ------
    CheckpointError
        If the file is damaged, belongs to another base, or has missing, superfluous or
        misshapen tensors.
    """
    card = read_card(path)
    if card.base_hash != (weights_hash(base) if base_hash is None else base_hash):
        raise CheckpointError(
            f"{path} was made for other weights: it names {card.base} ({card.base_hash[:12]}), "
            f"the model here is {base.spec.name}"
        )
    try:
        model = attach(base, card.config, len(card.classes))
    except InvalidSettingError as error:
        raise CheckpointError(f"{path} does not fit {base.spec.title}: {error}") from error
    read_weights(adapter_tensors(model, card.config), path)
    return model, card


def read_weights(wanted: Mapping[str, nn.Parameter], path: Path) -> None:
    """Copy the tensors of an adapter file into parameters, all of them and nothing else.

    Parameters
    ----------
    wanted : mapping of str to Parameter
        From `adapter_tensors`.
    path : Path
        File that `save_adapter` wrote.

    Raises
    ------
    CheckpointError
        If tensors are missing, superfluous, misshapen or not finite.
    """
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        missing, unexpected = sorted(set(wanted) - names), sorted(names - set(wanted))
        if missing or unexpected:
            raise CheckpointError(
                f"{path} does not hold what its card says, or was made by another version of "
                f"PhaseSAM: {len(missing)} tensors are missing {missing[:2]}, {len(unexpected)} "
                f"unexpected {unexpected[:2]}"
            )
        with torch.no_grad():
            for name, parameter in wanted.items():
                tensor = file.get_tensor(name)
                if tensor.shape != parameter.shape:
                    raise CheckpointError(
                        f"{path}: expected {name} of shape {tuple(parameter.shape)}, "
                        f"got {tuple(tensor.shape)}"
                    )
                if not torch.isfinite(tensor).all():
                    raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
                parameter.copy_(tensor)
