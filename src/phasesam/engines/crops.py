"""Overlapping crops of an image, as the automatic search looks at them."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import Box
from phasesam.core.windows import Windows, nearest_window

EDGE_TOLERANCE = 20


def crop_boxes(
    shape: tuple[int, int], n_layers: int, overlap_ratio: float
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Lay out the crops: layer i has ``(2**i)**2`` of them.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    n_layers : int
        Layers beside the whole image (layer 0).
    overlap_ratio : float
        Overlap in layer 1 as a share of the shorter side; halved with every layer.

    Returns
    -------
    list of (layer, (y0, x0, y1, x1))
        In pixels, half open.
    """
    height, width = shape
    boxes = [(0, (0, 0, height, width))]
    for layer in range(1, n_layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(shape) * (2 / count))
        tall = ceil((overlap * (count - 1) + height) / count)
        wide = ceil((overlap * (count - 1) + width) / count)
        left = [(wide - overlap) * i for i in range(count)]
        top = [(tall - overlap) * i for i in range(count)]
        boxes += [
            (layer, (y, x, min(y + tall, height), min(x + wide, width)))
            for x, y in product(left, top)
            if y < height and x < width
        ]
    return boxes


def window_points(
    shape: tuple[int, int], side: int, per_side: int, grid: NDArray[np.float64] | None
) -> list[tuple[Box, NDArray[np.float64]]]:
    """Share prompts out among windows, each to the one in whose middle it lies best.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    side : int
        Of the windows in pixels.
    per_side : int
        Prompts along the side of a window.
    grid : (n, 2) float array or None
        Own prompts ``(y, x)``, as shares of the image's sides, instead.

    Returns
    -------
    list of ((y0, x0, y1, x1), (n, 2) float array)
        Windows and prompts in pixels of the image.
    """
    if grid is None:
        counts = [max(1, round(length * per_side / side)) for length in shape]
        ticks = [(np.arange(count) + 0.5) / count for count in counts]
        grid = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    points = grid * np.array(shape)
    boxes = Windows(shape, side).cover()
    owner = nearest_window(points, boxes)
    return [(box, points[owner == index]) for index, box in enumerate(boxes)]


def cut_by_crop(
    boxes: NDArray[np.int64],
    crop: tuple[int, int, int, int],
    shape: tuple[int, int],
    tolerance: int = EDGE_TOLERANCE,
) -> NDArray[np.bool_]:
    """Tell which boxes end at the edge of their crop although the image goes on there.

    Parameters
    ----------
    boxes : (n, 4) int array
        ``(y0, x0, y1, x1)`` in the image, half open.
    crop : (y0, x0, y1, x1)
        The crop, in pixels.
    shape : (int, int)
        Height and width of the image.
    tolerance : int
        Pixels that may lie between a box and the edge.
    """
    last = boxes - np.array([0, 0, 1, 1])
    at_crop = np.abs(last - np.array(crop)) <= tolerance
    at_image = np.abs(last - np.array([0, 0, *shape])) <= tolerance
    return (at_crop & ~at_image).any(axis=1)
