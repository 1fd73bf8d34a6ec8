"""Cut an image that is too large for one pass into overlapping tiles."""

from __future__ import annotations

import math

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
