"""Small holes and islands removed from masks, as SAM's post-processing does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.mask_set import MaskCrop
from phasesam.core.masks import remove_small_regions
from phasesam.core.nms import box_nms


def clean_masks(
    crops: Sequence[MaskCrop], min_area: int, nms: float
) -> tuple[list[MaskCrop], NDArray[np.int64]]:
    """Fill small holes, drop small islands, and remove what has become a duplicate.

    Parameters
    ----------
    crops : sequence of MaskCrop
        The masks.
    min_area : int
        Regions of fewer pixels go; a mask of nothing else keeps its largest region.
    nms : float
        Of two masks whose boxes have a larger IoU, one that was changed goes.

    Returns
    -------
    list of MaskCrop, (k,) int array
        All masks cleaned, and the indices of those that stay, ascending.
    """
    cleaned = [clean_mask(crop, min_area) for crop in crops]
    # A mask that needed no cleaning is the better one.
    unchanged = [new.area == old.area for new, old in zip(cleaned, crops, strict=True)]
    boxes = np.array([crop.box for crop in cleaned], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] -= 1
    return cleaned, np.sort(box_nms(boxes, np.array(unchanged, dtype=np.float32), nms))


def clean_mask(crop: MaskCrop, min_area: int) -> MaskCrop:
    """Fill holes and drop islands of fewer than `min_area` pixels.

    A mask of nothing but small islands keeps its largest one. Islands are connected over
    corners, holes over edges.
    """
    mask = crop.array()
    # The rim joins all that lies around the mask, which is no hole.
    around, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
    holes = np.bincount(around.ravel(), minlength=count + 1) < min_area
    holes[[0, around[0, 0]]] = False
    if holes.any():
        mask = mask | holes[around[1:-1, 1:-1]]
    mask, dropped = remove_small_regions(mask, min_area, "islands")
    if not dropped and not holes.any():
        return crop
    return MaskCrop.from_array(mask, crop.y0, crop.x0)
