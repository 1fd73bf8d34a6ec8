"""Cut an image that is too large for one pass into overlapping tiles, or look beyond its border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidImageError, InvalidSettingError


def tiles(
    shape: tuple[int, int], size: int = 1024, overlap: int = 128
) -> list[tuple[int, int, int, int]]:
    """Cover an image with tiles of equal size.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    size : int
        Longest side of a tile in pixels.
    overlap : int
        Least number of pixels that neighbouring tiles share.

    Returns
    -------
    list of (int, int, int, int)
        ``(y0, x0, y1, x1)`` of each tile, half open, row by row. Together they cover
        every pixel. Tiles are spread evenly, so that all have the same shape: the
        image's where that is smaller than `size`, else `size`.

    Raises
    ------
    InvalidImageError
        If a side of the image is not positive.
    InvalidSettingError
        If the overlap does not leave a tile at least one new pixel.
    """
    if min(shape) < 1:
        raise InvalidImageError(f"expected sides of at least one pixel, got {shape}")
    if not 0 <= overlap < size:
        raise InvalidSettingError(f"expected 0 <= overlap < size, got {overlap} and {size}")
    height, width = min(size, shape[0]), min(size, shape[1])
    return [
        (y0, x0, y0 + height, x0 + width)
        for y0 in _starts(shape[0], height, overlap)
        for x0 in _starts(shape[1], width, overlap)
    ]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of the tiles along one axis."""
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def wide_box(box: tuple[int, int, int, int], factor: int) -> tuple[int, int, int, int]:
    """Enlarge a box ``(y0, x0, y1, x1)`` about its centre; it may reach beyond the image."""
    height, width = box[2] - box[0], box[3] - box[1]
    top = box[0] - (factor - 1) * height // 2
    left = box[1] - (factor - 1) * width // 2
    return top, left, top + factor * height, left + factor * width


def mirrored_cut(image: NDArray[Any], box: tuple[int, int, int, int]) -> NDArray[Any]:
    """Cut a box out of an image, which goes on mirrored beyond its border.

    Parameters
    ----------
    image : (h, w) or (h, w, bands) array
        Image.
    box : (int, int, int, int)
        ``(y0, x0, y1, x1)``, half open.

    Returns
    -------
    array
        A view where the box lies inside the image.
    """
    height, width = image.shape[:2]
    y0, x0, y1, x1 = box
    if y0 >= 0 and x0 >= 0 and y1 <= height and x1 <= width:
        return image[y0:y1, x0:x1]
    rows = np.take(image, _mirrored(y0, y1, height), axis=0)
    return np.take(rows, _mirrored(x0, x1, width), axis=1)


def _mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Run back and forth through an axis of ``size`` pixels."""
    around = np.arange(start, stop) % (2 * size)
    return np.minimum(around, 2 * size - 1 - around)
