"""Targets and answers of prompt-free class maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phasesam.models.class_decoder import class_logits
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss

if TYPE_CHECKING:
    from phasesam.models.sam import EncoderOutput, SamModel

_MASK_SIZE = 256
_FRAME = 1024


def class_targets(labels: NDArray[np.int32], n_classes: int) -> tuple[Tensor, Tensor]:
    """Put the classes of a view on the grid of the decoder.

    Parameters
    ----------
    labels : (h, w) int32 array
        Class of each pixel, at most 1024 pixels a side; -1 unlabelled.
    n_classes : int
        Number of classes.

    Returns
    -------
    target : (n_classes, 256, 256) tensor
        Fraction of each class among the labelled part of a pixel.
    weight : (256, 256) tensor
        Labelled fraction of each pixel.
    """
    factor = _FRAME // _MASK_SIZE
    frame = np.full((_FRAME, _FRAME), n_classes, dtype=np.int64)
    frame[: labels.shape[0], : labels.shape[1]] = np.where(labels < 0, n_classes, labels)
    cells = np.arange(_MASK_SIZE, dtype=np.int64).repeat(factor)
    index = (cells[:, None] * _MASK_SIZE + cells) * (n_classes + 1) + frame
    counts = np.bincount(index.ravel(), minlength=_MASK_SIZE**2 * (n_classes + 1))
    parts = counts.reshape(_MASK_SIZE, _MASK_SIZE, n_classes + 1)[..., :n_classes]
    known = parts.sum(-1)
    target = parts / np.maximum(known, 1)[..., None]
    return (
        torch.from_numpy(target.astype(np.float32)).permute(2, 0, 1).contiguous(),
        torch.from_numpy((known / factor**2).astype(np.float32)),
    )


def map_loss(
    model: SamModel,
    encoded: EncoderOutput,
    targets: list[tuple[Tensor, Tensor]],
    config: LossConfig,
) -> Tensor:
    """Judge the class maps of some views.

    Parameters
    ----------
    model : SamModel
        With class tokens.
    encoded : EncoderOutput
        Of as many views.
    targets : list of (target, weight)
        From `class_targets`.
    config : LossConfig
        Kind and weights.
    """
    device = encoded.features.device
    aim = torch.stack([target for target, _ in targets]).to(device)
    weight = torch.stack([weight for _, weight in targets]).to(device)
    return class_loss(class_logits(model, encoded.features), aim, weight, config)


def window_logits(
    model: SamModel, encoded: EncoderOutput, input_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Class logits of one picture at its own resolution.

    Parameters
    ----------
    model : SamModel
        With class tokens.
    encoded : EncoderOutput
        Of one picture.
    input_size : (int, int)
        Height and width that the picture has in the model's 1024 x 1024 frame.
    size : (int, int)
        Height and width of the picture.

    Returns
    -------
    (n_classes, h, w) float32 tensor
    """
    logits = class_logits(model, encoded.features).float()
    frame = functional.interpolate(logits, (_FRAME, _FRAME), mode="bilinear", align_corners=False)
    cut = frame[:, :, : input_size[0], : input_size[1]]
    return functional.interpolate(cut, size, mode="bilinear", align_corners=False, antialias=True)[
        0
    ]
