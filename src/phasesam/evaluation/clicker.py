"""Where a user would click next: the centre of the largest error.

The rule of interactive segmentation's benchmarks (RITM [1]_ and its successors), so that numbers
of clicks can be compared with published ones.

References
----------
.. [1] K. Sofiiuk, I. Petrov and A. Konushin, "Reviving Iterative Training with Mask Guidance for
   Interactive Segmentation", ICIP 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.boxes import Box, enclosing
from phasesam.core.mask_set import MaskCrop


@dataclass(frozen=True)
class Click:
    """One click.

    Attributes
    ----------
    y, x : int
        Pixel.
    positive : bool
        Inside the object, or outside.
    """

    y: int
    x: int
    positive: bool


def next_click(
    truth: MaskCrop,
    predicted: MaskCrop,
    clicked: Iterable[Click] = (),
    valid: NDArray[np.bool_] | None = None,
) -> Click | None:
    """Click into the error pixel that is farthest from the border of its error.

    The exact Euclidean distance to the nearest pixel that is no error of the same kind is
    taken, where everything beyond the image counts as none; pixels clicked before are left
    out. The click is positive if missing pixels reach deeper than superfluous ones, negative
    otherwise, also in a tie. Of several pixels at that depth it is the first by row and column.

    Parameters
    ----------
    truth, predicted : MaskCrop
        The object and what was found, in the same image.
    clicked : iterable of Click
        Earlier clicks.
    valid : (h, w) bool array, optional
        Where the truth is known; elsewhere nothing is an error.

    Returns
    -------
    Click or None
        None where no error is left to be clicked.
    """
    box = union_box(truth, predicted)
    wanted, found = window(truth, box), window(predicted, box)
    if valid is not None:
        known = valid[box[0] : box[2], box[1] : box[3]]
        missing, surplus = wanted & ~found & known, found & ~wanted & known
    else:
        missing, surplus = wanted & ~found, found & ~wanted
    before = [
        (click.y - box[0], click.x - box[1])
        for click in clicked
        if box[0] <= click.y < box[2] and box[1] <= click.x < box[3]
    ]
    (deep, inside), (shallow, outside) = _deepest(missing, before), _deepest(surplus, before)
    if max(deep, shallow) == 0:
        return None
    y, x = inside if deep > shallow else outside
    return Click(y + box[0], x + box[1], positive=deep > shallow)


def _deepest(
    error: NDArray[np.bool_], clicked: list[tuple[int, int]]
) -> tuple[float, tuple[int, int]]:
    """Largest distance to the border of an error and its first pixel; 0 without error."""
    rows = np.flatnonzero(error.any(axis=1))
    if len(rows) == 0:
        return 0.0, (0, 0)
    columns = np.flatnonzero(error.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    # The nearest pixel outside lies in the box or right beside it: a larger part of the
    # image gives the same distances.
    part = np.pad(error[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(part)[1:-1, 1:-1]
    for y, x in clicked:
        if 0 <= y - top < depth.shape[0] and 0 <= x - left < depth.shape[1]:
            depth[y - top, x - left] = 0
    y, x = divmod(int(np.argmax(depth)), depth.shape[1])
    return float(depth[y, x]), (top + y, left + x)


def union_box(first: MaskCrop, second: MaskCrop) -> Box:
    """Smallest box ``(y0, x0, y1, x1)`` around two masks; empty ones do not count."""
    boxes = [crop.box for crop in (first, second) if crop.area]
    if not boxes:
        return first.y0, first.x0, first.y0, first.x0
    return enclosing(boxes[0], boxes[-1])


def window(crop: MaskCrop, box: Box) -> NDArray[np.bool_]:
    """Part of a mask within a box that holds all of it."""
    part = np.zeros((box[2] - box[0], box[3] - box[1]), np.bool_)
    if crop.area:
        y, x = crop.y0 - box[0], crop.x0 - box[1]
        part[y : y + crop.height, x : x + crop.width] = crop.array()
    return part
