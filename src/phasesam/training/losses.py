"""Losses of masks and class maps at the resolution of the decoder, with pixels left out.

Targets are fractions: how much of a decoder pixel, 4 x 4 pixels of the model's input, the mask
or class covers. So the position of an edge within such a pixel counts, and thin phases do not
disappear. Dice after Milletari et al. (arXiv 1606.04797) through monai; focal after Lin et al.
(arXiv 1708.02002).
"""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from phasesam.training.loss_config import LossConfig

_GAMMA = 2.0
_SMALLEST = 1e-7


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor, config: LossConfig) -> Tensor:
    """Judge masks one by one.

    Parameters
    ----------
    logits : (n, m, h, w) tensor
        ``m`` proposals for each of ``n`` objects.
    target : (n, h, w) tensor
        Covered fraction of each pixel, 0–1.
    weight : (h, w) tensor
        Labelled fraction of each pixel; 0 leaves it out.
    config : LossConfig
        Kind and weights.

    Returns
    -------
    (n, m) tensor
    """
    logits = logits.float()
    n, m = logits.shape[:2]
    aim = target[:, None].expand_as(logits)
    seen = weight.expand_as(logits)
    probability = torch.sigmoid(logits)
    dice = _soft_dice(
        (probability * seen).reshape(n * m, 1, -1), (aim * seen).reshape(n * m, 1, -1)
    )
    pixels = functional.binary_cross_entropy_with_logits(logits, aim, reduction="none")
    if config.kind == "dice_focal":
        # The power of a distance of exactly zero has no finite gradient.
        pixels = pixels * (probability - aim).abs().clamp_min(_SMALLEST) ** _GAMMA
    mean = (pixels * seen).sum((-2, -1)) / seen.sum((-2, -1)).clamp_min(1.0)
    return config.dice * dice.view(n, m) + config.pixels * mean


def class_loss(logits: Tensor, target: Tensor, weight: Tensor, config: LossConfig) -> Tensor:
    """Judge class maps: softmax, then Dice over the classes that occur, and cross-entropy.

    Parameters
    ----------
    logits : (b, k, h, w) tensor
        Of all classes.
    target : (b, k, h, w) tensor
        Fraction of each class among the labelled part of a pixel; adds up to 1.
    weight : (b, h, w) tensor
        Labelled fraction of each pixel; 0 leaves it out.
    config : LossConfig
        Kind and weights.

    Returns
    -------
    scalar tensor
    """
    logits = logits.float()
    log_probability = functional.log_softmax(logits, 1)
    probability = log_probability.exp()
    seen = weight[:, None]
    pixels = -(target * log_probability)
    if config.kind == "dice_focal":
        pixels = pixels * (1 - probability).clamp_min(_SMALLEST) ** _GAMMA
    mean = (pixels * seen).sum() / weight.sum().clamp_min(1.0)
    by_class = _soft_dice(
        (probability * seen).transpose(0, 1).flatten(1)[:, None],
        (target * seen).transpose(0, 1).flatten(1)[:, None],
    )
    # A class that does not occur has no Dice; what is wrongly called it costs cross-entropy.
    present = (target * seen).sum((0, 2, 3)) > 0
    dice = (by_class * present).sum() / present.sum().clamp_min(1)
    return config.dice * dice + config.pixels * mean


_DICE = DiceLoss(reduction="none", smooth_nr=1.0, smooth_dr=1.0)


def _soft_dice(probability: Tensor, target: Tensor) -> Tensor:
    """Dice loss of (n, 1, pixels), one number each."""
    return _DICE(probability, target).view(-1)


def pooled_mask(mask: Tensor, size: int) -> Tensor:
    """Covered fraction of each pixel of a coarser grid.

    Parameters
    ----------
    mask : (..., s, s) tensor
        Masks of the model's input, square, ``s`` a multiple of `size`.
    size : int
        Side of the decoder's masks.
    """
    factor = mask.shape[-1] // size
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return functional.avg_pool2d(flat, factor).view(*mask.shape[:-2], size, size)


def mask_iou(logits: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """IoU of masks above a logit of 0, at the resolution of the true ones.

    Parameters
    ----------
    logits : (n, m, h, w) tensor
        ``m`` proposals for each of ``n`` objects.
    true : (n, s, s) bool tensor
        Objects, on an equal or finer grid.
    known : (s, s) bool tensor
        Where anything is labelled.

    Returns
    -------
    (n, m) tensor
        1 where both masks are empty.
    """
    size = (true.shape[-2], true.shape[-1])
    rows = []
    # One object after the other: fine masks of all of them would fill the memory.
    for proposals, aim in zip(logits.float(), true & known, strict=True):
        fine = functional.interpolate(proposals[None], size, mode="bilinear", align_corners=False)
        found = (fine[0] > 0) & known
        shared = (found & aim).sum((-2, -1)).float()
        union = (found | aim).sum((-2, -1)).float()
        rows.append(torch.where(union > 0, shared / union.clamp_min(1), 1.0))
    return torch.stack(rows)
