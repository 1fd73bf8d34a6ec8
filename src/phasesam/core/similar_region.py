"""From a map of similarity of tokens to a mask of pixels, and to points that prompt for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label, map_coordinates

from phasesam.core.errors import InvalidMaskError


def similar_region(
    similarity: NDArray[np.float32],
    side: float,
    shape: tuple[int, int],
    *,
    least: float,
    around: tuple[float, float] | None = None,
) -> NDArray[np.bool_]:
    """Pixels that look like a token.

    Parameters
    ----------
    similarity : (h, w) float32 array
        Of the tokens, the first at the corner of the image.
    side : float
        Side of a token in pixels.
    shape : (int, int)
        Height and width of the image.
    least : float
        Similarity from which on a pixel belongs to the region; between the centres of tokens it
        is interpolated.
    around : (float, float), optional
        ``(y, x)`` of a pixel: only the part of the region that it lies in.

    Returns
    -------
    (h, w) bool array

    Raises
    ------
    InvalidMaskError
        If the pixel is not in the region.
    """
    rows, columns = ((np.arange(n) + 0.5) / side - 0.5 for n in shape)
    # Nowhere beyond the centres of the outermost tokens is anything known.
    rows = np.clip(rows, 0, similarity.shape[0] - 1)
    columns = np.clip(columns, 0, similarity.shape[1] - 1)
    places = np.meshgrid(rows, columns, indexing="ij")
    mask: NDArray[np.bool_] = map_coordinates(similarity, places, order=1) >= least
    if around is None:
        return mask
    y, x = (int(np.clip(round(v), 0, n - 1)) for v, n in zip(around, shape, strict=True))
    parts, _ = label(mask)
    if parts[y, x] == 0:
        raise InvalidMaskError(
            f"the pixel ({y}, {x}) itself is less similar than {least:.2f}: lower the threshold"
        )
    part: NDArray[np.bool_] = parts == parts[y, x]
    return part


def inner_points(mask: NDArray[np.bool_], most: int = 3) -> NDArray[np.float64]:
    """Points deep inside a mask, far from one another: prompts for it.

    Parameters
    ----------
    mask : (h, w) bool array
        Of an object.
    most : int
        Points at most.

    Returns
    -------
    (n, 2) float64 array
        ``(y, x)``; the deepest first. None of an empty mask.
    """
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    deepest = float(depth.max(initial=0.0))
    points: list[tuple[int, int]] = []
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    while len(points) < most and depth.size:
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        # Further points are worth while only where the object is nearly as wide.
        if depth[y, x] < max(0.5 * deepest, 0.5):
            break
        points.append((int(y), int(x)))
        depth = np.where(np.hypot(rows - y, columns - x) < 2 * deepest, 0.0, depth)
    return np.array(points, np.float64).reshape(-1, 2)
