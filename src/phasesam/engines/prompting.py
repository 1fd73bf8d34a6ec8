"""From prompts to masks: the decoder on one cached embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from phasesam.core.coordinates import boxes_to_model, points_to_model
from phasesam.core.errors import InvalidPromptError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.masks import stability_score
from phasesam.core.types import Prompts
from phasesam.engines.rendering import raster
from phasesam.models.mask_decoder import MultiPromptDecoder

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.manager import ModelManager
    from phasesam.models.sam import SamModel

_SURE = 6.9
"""Logit of a probability of 0.999, for masks that come as yes or no."""


def predict(
    model: SamModel,
    manager: ModelManager,
    embedding: Embedding,
    prompts: Prompts,
    *,
    logits: NDArray[np.float32] | None = None,
    multimask_output: bool = True,
    threshold: float = 0.0,
) -> MaskSet:
    """Segment what the prompts point at.

    Parameters
    ----------
    model : SamModel
        Leased from `manager`.
    manager : ModelManager
        Guards the device.
    embedding : Embedding
        Of the image.
    prompts : Prompts
        One object; or several boxes without points, then one object per box. A mask or
        logits without points or a box get the box around them.
    logits : (256, 256) float32 array, optional
        Logits of an earlier answer for the same object, to be refined.
    multimask_output : bool
        Three scales (part, object, group) instead of one mask. SAM-HQ gives one always.
    threshold : float
        Logit above which a pixel belongs to the object.

    Returns
    -------
    MaskSet
        One object: its scales in SAM's order. Several boxes: the best mask of each.

    Raises
    ------
    InvalidPromptError
        As `check_prompts`, or if `logits` have the wrong shape.
    """
    check_prompts(prompts, logits)
    prompts = _with_box(prompts, logits, embedding.image_shape, model)
    count = max(1, len(prompts.boxes))

    def run() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return _decode(model, embedding, prompts, logits, multimask_output)

    low, scores = manager.retry(run, doing="decoding prompts")
    if count > 1:
        best = scores.argmax(axis=1)
        low = low[np.arange(count), best][None]
        scores = scores[np.arange(count), best][None]
    return _mask_set(low[0], scores[0], embedding.image_shape, model.image_size, threshold)


def check_prompts(prompts: Prompts, logits: NDArray[np.float32] | None) -> None:
    """Refuse prompts that do not say one thing, before anything is computed.

    Raises
    ------
    InvalidPromptError
        If there is no prompt, several boxes come with points or a mask, a mask is empty, or
        it comes with the logits of an earlier answer.
    """
    if prompts.is_empty and logits is None:
        raise InvalidPromptError("expected at least one point, box or mask, got none")
    count = len(prompts.boxes)
    if count > 1 and (len(prompts.points) or prompts.mask is not None or logits is not None):
        raise InvalidPromptError(
            f"several boxes mean several objects, each without points or a mask; got {count} "
            f"boxes and {len(prompts.points)} points"
        )
    if prompts.mask is not None and logits is not None:
        raise InvalidPromptError("expected a mask or logits to start from, got both")
    if prompts.mask is not None and not prompts.mask.any():
        raise InvalidPromptError("expected a mask prompt with at least one pixel, got none")


def _with_box(
    prompts: Prompts,
    logits: NDArray[np.float32] | None,
    shape: tuple[int, int],
    model: SamModel,
) -> Prompts:
    """Put a box around a mask or logits that come alone.

    SAM has never seen a mask without a point or a box in training, and answers with nothing.
    """
    if len(prompts.points) or len(prompts.boxes):
        return prompts
    if prompts.mask is not None:
        box = MaskCrop.from_array(prompts.mask).box
    else:
        plane = np.asarray(logits, dtype=np.float32)
        side = 4 * model.embed_size
        target = raster(shape, side, model.image_size)
        window = target.window(plane, 0.0) if plane.shape == (side, side) else None
        if window is None or window[0].stop == 0 or window[1].stop == 0:
            return prompts
        box = (window[0].start, window[1].start, window[0].stop, window[1].stop)
    return replace(prompts, boxes=np.array([box], dtype=np.float64))


@torch.inference_mode()
def _decode(
    model: SamModel,
    embedding: Embedding,
    prompts: Prompts,
    logits: NDArray[np.float32] | None,
    multimask_output: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the decoder: logits (objects, masks, 256, 256) and scores (objects, masks)."""
    decoder = MultiPromptDecoder(model)
    device, dtype = next(model.mask_decoder.parameters()).device, decoder.dtype
    shape = embedding.image_shape
    points = boxes = None
    count = max(1, len(prompts.boxes))
    if len(prompts.points):
        xy = points_to_model(prompts.points, shape, model.image_size)
        points = (
            torch.as_tensor(xy, dtype=dtype, device=device)[None],
            torch.as_tensor(prompts.labels, device=device)[None],
        )
    if len(prompts.boxes):
        xyxy = boxes_to_model(prompts.boxes, shape, model.image_size)
        boxes = torch.as_tensor(xyxy, dtype=dtype, device=device)
    mask = _mask_input(model, prompts, logits, embedding.input_size)
    if mask is not None:
        mask = mask.to(device=device, dtype=dtype)
    sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=mask)
    if sparse.shape[0] != count:
        sparse = sparse.expand(count, -1, -1)
    context = decoder.context(
        embedding.features.to(device=device, dtype=dtype),
        tuple(t.to(device=device, dtype=dtype) for t in embedding.intermediate),
        dense=None if mask is None else dense,
    )
    hidden, keys, predicted = decoder.tokens(context, sparse)
    scales = (1, 2, 3) if multimask_output else (0,)
    low = decoder.masks(context, hidden, keys, scales).float()
    scores = predicted[:, list(scales)].float()
    if model.is_hq and multimask_output:
        best = scores.argmax(dim=1, keepdim=True)
        low = torch.take_along_dim(low, best[:, :, None, None], dim=1)
        scores = torch.take_along_dim(scores, best, dim=1)
    return low.cpu().numpy().copy(), scores.cpu().numpy()


def _mask_input(
    model: SamModel,
    prompts: Prompts,
    logits: NDArray[np.float32] | None,
    input_size: tuple[int, int],
) -> Tensor | None:
    """Make the (1, 1, 256, 256) mask prompt of earlier logits or of a given mask."""
    side = 4 * model.embed_size
    if logits is not None:
        plane = np.asarray(logits, dtype=np.float32)
        if plane.shape != (side, side):
            raise InvalidPromptError(
                f"logits must be one plane of shape ({side}, {side}), got {plane.shape}"
            )
        return torch.from_numpy(plane.copy())[None, None]
    if prompts.mask is None:
        return None
    # Shrinking logits would wash small objects out; shrinking the mask keeps its share.
    scale = side / model.image_size
    height = max(1, round(input_size[0] * scale))
    width = max(1, round(input_size[1] * scale))
    share = F.interpolate(
        torch.from_numpy(prompts.mask.astype(np.float32))[None, None],
        size=(height, width),
        mode="area",
    )
    padded = torch.zeros(1, 1, side, side)
    inside = share > 0.5 if bool((share > 0.5).any()) else share >= share.max()
    padded[..., :height, :width] = torch.where(inside, _SURE, -_SURE)
    return padded


def _mask_set(
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    shape: tuple[int, int],
    image_size: int,
    threshold: float,
) -> MaskSet:
    target = raster(shape, logits.shape[-1], image_size)
    crops = []
    for plane in logits:
        window = target.window(plane, threshold)
        if window is None or window[0].stop == 0 or window[1].stop == 0:
            crops.append(MaskCrop.from_array(np.zeros((1, 1), np.bool_)))
            continue
        mask = target.render(plane, window) > threshold
        crops.append(MaskCrop.from_array(mask, window[0].start, window[1].start))
    rows, columns = target.used
    return MaskSet.from_crops(
        shape,
        crops,
        scores,
        stability=stability_score(logits[:, :rows, :columns], threshold),
        logits=logits,
    )
