"""Small holes and islands removed from chosen masks, as SAM's post-processing does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phasesam.core.curation import fill_holes
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
    cleaned = [_clean(crop, min_area) for crop in crops]
    # A mask that needed no cleaning is the better one.
    unchanged = [new.area == old.area for new, old in zip(cleaned, crops, strict=True)]
    boxes = np.array([crop.box for crop in cleaned], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] -= 1
    return cleaned, np.sort(box_nms(boxes, np.array(unchanged, dtype=np.float32), nms))


def _clean(crop: MaskCrop, min_area: int) -> MaskCrop:
    filled = fill_holes(crop, max_area=min_area - 1)
    kept, changed = remove_small_regions(filled.array(), min_area, "islands")
    if not changed:
        return filled
    return MaskCrop.from_array(kept, filled.y0, filled.x0)
