"""How large a part of an image a view shows, where the recipe leaves that open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

_SMALLEST, _LARGEST = 256, 1024
_ROOM = 3.5
_LARGE_OBJECT = 95
_STEP = 32
_WORTH = 0.9


def phase_window(longest_side: int) -> int | None:
    """Choose the window for phases: three quarters of the image, 256 to 1024 pixels.

    Large enough to know the surroundings, small enough to see what is a few pixels wide.

    Parameters
    ----------
    longest_side : int
        Of the images, in pixels.

    Returns
    -------
    int or None
        Side in pixels; None for whole images.
    """
    side = min(_LARGEST, max(_SMALLEST, longest_side * 3 // 4))
    return side if longest_side > side else None


def object_window(longest_side: int, extent: float) -> int | None:
    """Choose the window for objects: three and a half times as wide as the large ones.

    So they lie whole within windows that overlap by half, and small ones are seen large.

    Parameters
    ----------
    longest_side : int
        Of the images, in pixels.
    extent : float
        Of a large object, in pixels; see `large_extent`.

    Returns
    -------
    int or None
        Side in pixels; None for whole images.
    """
    side = max(_SMALLEST, _STEP * round(_ROOM * extent / _STEP))
    return side if extent > 0 and side < _WORTH * longest_side else None


def large_extent(labels: Iterable[NDArray[np.int32]]) -> float:
    """Measure how long large objects are.

    Parameters
    ----------
    labels : iterable of (h, w) int32 array
        Objects 1, 2, …

    Returns
    -------
    float
        95th percentile of the longer sides of their bounding boxes, in pixels; 0 without any.
    """
    return typical_extent([side for each in labels for side in object_sides(each)])


def typical_extent(sides: Sequence[int]) -> float:
    """Percentile of the longer sides of objects that stands for large ones; 0 without any."""
    return float(np.percentile(sides, _LARGE_OBJECT)) if sides else 0.0


def object_sides(labels: NDArray[np.int32]) -> list[int]:
    """Longer sides of the bounding boxes of objects 1, 2, … of a label image, (h, w)."""
    boxes = filter(None, find_objects(_compact(labels)))
    return [max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes]


def _compact(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give objects numbers from 1 without gaps, and the rest 0."""
    values, numbers = np.unique(np.maximum(labels, 0), return_inverse=True)
    found = numbers.reshape(labels.shape).astype(np.int32)
    return found if values[0] == 0 else found + 1
