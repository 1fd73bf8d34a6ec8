"""What an adapter changes in a SAM: settings, and the layers they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from torch import nn

Method = Literal["lora", "conv_lora"]
EncoderTarget = Literal["qkv", "qv", "proj", "mlp"]
Part = Literal["none", "lora", "full"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "method": ("lora", "conv_lora"),
    "decoder": ("none", "lora", "full"),
    "hq": ("none", "lora", "full"),
    "gate": ("dense", "switch", "published"),
    "ratio": ("none", "global", "spatial", "located"),
}
_TARGETS = ("qkv", "qv", "proj", "mlp")

_VIT_BLOCK = re.compile(
    r"image_encoder\.blocks\.(?P<first>\d+)\.(?P<kind>attn\.qkv|attn\.proj|mlp\.lin[12])"
)
_TINY_BLOCK = re.compile(
    r"image_encoder\.layers\.(?P<first>[123])\.blocks\.(?P<second>\d+)"
    r"\.(?P<kind>attn\.qkv|attn\.proj|mlp\.fc[12])"
)
_BEGIN = re.compile(r"all|late|block[1-9]\d*|stage[1-4](\.block[1-9]\d*)?")
_DECODER = re.compile(
    r"mask_decoder\.transformer\.(layers\.\d+\.\w*attn\w*|final_attn_token_to_image)"
    r"\.(q_proj|k_proj|v_proj|out_proj)|mask_decoder\.transformer\.layers\.\d+\.mlp\.lin[12]"
)
_HQ_LINEAR = re.compile(r"mask_decoder\.hf_mlp\.layers\.\d+")
_HQ_CONV = re.compile(r"mask_decoder\.embedding_maskfeature\.[03]")
_FIRST_LATE_STAGE = 2


@dataclass(frozen=True)
class AdapterConfig:
    """Which layers an adapter changes, and how.

    Attributes
    ----------
    method : {"lora", "conv_lora"}
        How encoder layers are changed. The decoder has tokens without a place and always gets
        plain LoRA.
    encoder : tuple of {"qkv", "qv", "proj", "mlp"}
        Layers of each encoder block: "qkv" with one bottleneck for query, key and value (as
        peft does), "qv" with one each for query and value (as SAMed does), the output
        projection, the multi-layer perceptron. Empty for none.
    blocks : str
        "all" blocks, the "late" half, or the name of the first one: "block7" of a ViT, "stage3" or
        "stage3.block2" of a TinyViT. Those before it are the same for the base and all adapters,
        and run once an image in training.
    decoder : {"none", "lora", "full"}
        The transformer of the mask decoder.
    hq : {"none", "lora", "full"}
        SAM-HQ's own part of the decoder; nothing in other models.
    detail : bool
        Whether class maps are corrected by convolutions over the picture itself; nothing
        without classes.
    ratio : {"none", "global", "spatial", "located"}
        Whether phase fractions can be an input of class maps, and how; see
        `phasesam.models.ratio_encoder`. Nothing without classes.
    class_boxes : bool
        Whether a box for each class can be an input of class maps; nothing without classes.
    iou_head : bool
        Whether the head that predicts the IoU is trained (in full).
    rank, decoder_rank : int
        Width of the bottleneck in encoder and decoder.
    alpha : float
        Scale: alpha / sqrt(rank) with `rslora`, alpha / rank without.
    rslora : bool
        Rank-stabilised scaling (Kalajdzievski, arXiv 2312.03732).
    dropout : float
        Share of inputs of the bottleneck left out in training, 0–1.
    gate : {"dense", "switch", "published"}
        Of Conv-LoRA; see `phasesam.models.conv_lora`.
    """

    method: Method = "lora"
    encoder: tuple[EncoderTarget, ...] = ("qkv", "proj")
    blocks: str = "late"
    decoder: Part = "lora"
    hq: Part = "none"
    detail: bool = True
    ratio: Literal["none", "global", "spatial", "located"] = "none"
    class_boxes: bool = False
    iou_head: bool = False
    rank: int = 16
    decoder_rank: int = 16
    alpha: float = 16.0
    rslora: bool = True
    dropout: float = 0.0
    gate: Literal["dense", "switch", "published"] = "dense"

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", tuple(self.encoder))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidSettingError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.blocks, str) or not _BEGIN.fullmatch(self.blocks):
            raise InvalidSettingError(
                "blocks must be all, late, or the first one such as block7, stage3 or "
                f"stage3.block2, got {self.blocks!r}"
            )
        unknown = [target for target in self.encoder if target not in _TARGETS]
        if unknown or {"qkv", "qv"} <= set(self.encoder):
            raise InvalidSettingError(
                f"encoder takes some of {', '.join(_TARGETS)} (qkv or qv, not both), "
                f"got {list(self.encoder)}"
            )
        if self.method == "conv_lora" and not set(self.encoder) <= {"qkv", "proj"}:
            raise InvalidSettingError(
                f"Conv-LoRA adapts qkv and proj of the encoder, got {list(self.encoder)}"
            )
        for name in ("rank", "decoder_rank"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InvalidSettingError(f"{name} must be a whole number from 1, got {value!r}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InvalidSettingError(f"alpha must be a positive number, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InvalidSettingError(f"dropout must be within 0–1, got {self.dropout}")
        if not self.encoder and self.decoder == "none" and self.hq == "none":
            raise InvalidSettingError("the adapter changes nothing: choose encoder, decoder or hq")

    @property
    def mergeable(self) -> bool:
        """Whether the adapter can become part of the weights of its base."""
        return self.method == "lora" or not self.encoder

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a card in JSON."""
        return {**asdict(self), "encoder": list(self.encoder)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidSettingError
            If a setting is unknown or out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidSettingError(f"unknown settings of an adapter: {', '.join(unknown)}")
        return cls(**values)


def encoder_layers(model: nn.Module, config: AdapterConfig) -> list[str]:
    """Names of the encoder layers that `config` means.

    Raises
    ------
    InvalidSettingError
        If the encoder has none of them.
    """
    if not config.encoder:
        return []
    wanted = {
        "attn.qkv": {"qkv", "qv"},
        "attn.proj": {"proj"},
        "mlp.lin1": {"mlp"}, "mlp.lin2": {"mlp"}, "mlp.fc1": {"mlp"}, "mlp.fc2": {"mlp"},
    }  # fmt: skip
    chosen = set(config.encoder)
    begin = _begin(model, config.blocks)
    names = []
    for name, _ in model.named_modules():
        match = _VIT_BLOCK.fullmatch(name) or _TINY_BLOCK.fullmatch(name)
        if match is None or not wanted[match["kind"]] & chosen:
            continue
        place = int(match["first"]), int(match.groupdict().get("second") or 0)
        if place >= begin:
            names.append(name)
    if not names:
        raise InvalidSettingError("the image encoder has no layers of the kind asked for")
    return names


def _begin(model: nn.Module, blocks: str) -> tuple[int, int]:
    """Index of the first block that is adapted, of a TinyViT of its stage and within it."""
    encoder: Any = model.image_encoder
    is_vit = hasattr(encoder, "blocks")
    if blocks in ("all", "late"):
        return (0 if blocks == "all" else first_late(model)), 0
    first, _, second = blocks.removeprefix("block").removeprefix("stage").partition(".block")
    index = int(first) - 1, int(second or 1) - 1
    fits = is_vit == blocks.startswith("block")
    stages = encoder.blocks if is_vit else encoder.layers
    if not fits or index[0] >= len(stages) or (second and index[1] >= len(stages[index[0]].blocks)):
        kind = f"{len(stages)} blocks, block1" if is_vit else f"{len(stages)} stages, stage1"
        raise InvalidSettingError(
            f"the image encoder has no {blocks} to adapt from; it has {kind} to "
            f"{'block' if is_vit else 'stage'}{len(stages)}"
        )
    return index


def blocks_from(layer: str) -> str | None:
    """Find the setting `AdapterConfig.blocks` that adapts from a layer on.

    Parameters
    ----------
    layer : str
        As `phasesam.models.layer_taps.layer_names` has them.

    Returns
    -------
    str or None
        None for the neck: after the last block there is only the decoder to be adapted.
    """
    stage, _, part = layer.partition(".")
    if part == "out":
        # What the next stage begins with.
        return f"stage{int(stage.removeprefix('stage')) + 1}"
    if stage == "stage1" or layer == "block1":
        return "all"
    return layer if _BEGIN.fullmatch(layer) else None


def first_late(model: nn.Module) -> int:
    """Index of the first block (ViT) or stage (TinyViT) of the late half of the encoder."""
    blocks = getattr(model.image_encoder, "blocks", None)
    return _FIRST_LATE_STAGE if blocks is None else len(blocks) // 2


def decoder_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers of the decoder's transformer."""
    return [name for name, _ in model.named_modules() if _DECODER.fullmatch(name)]


def hq_layers(model: nn.Module) -> list[str]:
    """Names of SAM-HQ's own layers that LoRA fits."""
    return [
        name for name, _ in model.named_modules()
        if _HQ_LINEAR.fullmatch(name) or _HQ_CONV.fullmatch(name)
    ]  # fmt: skip
