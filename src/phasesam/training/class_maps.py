"""Targets and answers of prompt-free class maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phasesam.core.levels import Levels
from phasesam.models.class_decoder import ClassHints, class_answers, class_logits
from phasesam.models.detail_head import detail_picture
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss

if TYPE_CHECKING:
    from phasesam.models.sam import EncoderOutput, SamModel

_FRAME = 1024


def class_targets(
    labels: NDArray[np.int32], n_classes: int, side: int = 256, frame: int = _FRAME
) -> tuple[Tensor, Tensor]:
    """Put the classes of a view on the grid of the decoder.

    Parameters
    ----------
    labels : (h, w) int32 array
        Class of each pixel, at most `frame` pixels a side; -1 unlabelled.
    n_classes : int
        Number of classes.
    side : int
        Height and width of the decoder's maps.
    frame : int
        Height and width in pixels of what they show; `side` divides it.

    Returns
    -------
    target : (n_classes, side, side) tensor
        Fraction of each class among the labelled part of a pixel.
    weight : (side, side) tensor
        Labelled fraction of each pixel.
    """
    factor = frame // side
    marks = np.full((frame, frame), n_classes, dtype=np.int64)
    marks[: labels.shape[0], : labels.shape[1]] = np.where(labels < 0, n_classes, labels)
    cells = np.arange(side, dtype=np.int64).repeat(factor)
    index = (cells[:, None] * side + cells) * (n_classes + 1) + marks
    counts = np.bincount(index.ravel(), minlength=side**2 * (n_classes + 1))
    parts = counts.reshape(side, side, n_classes + 1)[..., :n_classes]
    known = parts.sum(-1)
    target = parts / np.maximum(known, 1)[..., None]
    return (
        torch.from_numpy(target.astype(np.float32)).permute(2, 0, 1).contiguous(),
        torch.from_numpy((known / factor**2).astype(np.float32)),
    )


def map_loss(
    model: SamModel,
    encoded: EncoderOutput,
    pictures: Tensor,
    targets: list[tuple[Tensor, Tensor]],
    config: LossConfig,
    hints: ClassHints | None = None,
) -> Tensor:
    """Judge the class maps of some views.

    Parameters
    ----------
    model : SamModel
        With class tokens.
    encoded : EncoderOutput
        Of some views.
    pictures : (b, 3, 1024, 1024) tensor
        The views as `detail_picture` makes them.
    targets : list of (target, weight)
        From `class_targets`.
    config : LossConfig
        Kind and weights.
    hints : ClassHints, optional
        What the network is told of the views.
    """
    device = encoded.features.device
    aim = torch.stack([target for target, _ in targets]).to(device)
    weight = torch.stack([weight for _, weight in targets]).to(device)
    corrected, coarse = class_answers(model, encoded.features, pictures, hints)
    loss = class_loss(corrected, aim, weight, config)
    if config.coarse and coarse is not corrected:
        factor = aim.shape[-1] // coarse.shape[-1]
        share = functional.avg_pool2d(weight[:, None], factor)
        pooled = functional.avg_pool2d(aim * weight[:, None], factor) / share.clamp_min(1e-6)
        loss = loss + config.coarse * class_loss(coarse, pooled, share[:, 0], config)
    return loss


def window_logits(
    model: SamModel,
    encoded: EncoderOutput,
    resized: NDArray[np.uint8],
    levels: Levels,
    size: tuple[int, int],
    hints: ClassHints | None = None,
) -> Tensor:
    """Class logits of one picture at its own resolution.

    Parameters
    ----------
    model : SamModel
        With class tokens.
    encoded : EncoderOutput
        Of one picture.
    resized : (h', w', 3) uint8 array
        The picture, its longer side scaled to 1024 pixels.
    levels : Levels
        Of the image that it is a part of.
    size : (int, int)
        Height and width of the picture.
    hints : ClassHints, optional
        What the network is told of it.

    Returns
    -------
    (n_classes, h, w) float32 tensor
    """
    picture = detail_picture(resized, levels, _FRAME)
    logits = class_logits(model, encoded.features, picture, hints).float()
    frame = functional.interpolate(logits, (_FRAME, _FRAME), mode="bilinear", align_corners=False)
    cut = frame[:, :, : resized.shape[0], : resized.shape[1]]
    return functional.interpolate(cut, size, mode="bilinear", align_corners=False, antialias=True)[
        0
    ]
