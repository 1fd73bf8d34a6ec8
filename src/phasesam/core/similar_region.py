"""From one token to all that look like it, to a mask, and to points that prompt for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from phasesam.core.errors import InvalidMaskError

_UNIT = 1e-3


def similarity(tokens: NDArray[np.floating], place: tuple[int, int]) -> NDArray[np.float32]:
    """Cosine similarity of all tokens of a layer to one of them.

    Parameters
    ----------
    tokens : (h, w, c) float array
        Of a layer, or of `unit_tokens`, which makes this fast.
    place : (int, int)
        Row and column.

    Returns
    -------
    (h, w) float32 array
        Within -1 to 1.
    """
    own = np.asarray(tokens[place], np.float32)
    is_unit = tokens.dtype == np.float32 and abs(float(own @ own) - 1) < _UNIT
    units = tokens if is_unit else unit_tokens(tokens)
    return units @ units[place]


def unit_tokens(tokens: NDArray[np.floating]) -> NDArray[np.float32]:
    """Tokens less their mean, all of length 1: for many `similarity` of one layer.

    Without their mean, for that is what all tokens of a layer share, and most of their length.
    """
    units = tokens.astype(np.float32)
    units -= units.mean(axis=(0, 1))
    length = np.linalg.norm(units, axis=-1, keepdims=True)
    units /= np.maximum(length, np.finfo(np.float32).tiny)
    return units


def class_similarity(units: NDArray[np.float32], members: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Cosine similarity of all tokens of a layer to the mean of a class.

    Parameters
    ----------
    units : (h, w, c) float32 array
        From `unit_tokens`.
    members : (h, w) bool array
        Tokens of the class.

    Returns
    -------
    (h, w) float32 array
        Within -1 to 1.

    Raises
    ------
    InvalidMaskError
        If no token is of the class.
    """
    if not members.any():
        raise InvalidMaskError("the class is most of no token here: there is no mean of it")
    mean = units[members].mean(axis=0)
    found: NDArray[np.float32] = units @ (
        mean / max(float(np.linalg.norm(mean)), np.finfo(np.float32).tiny)
    )
    return found


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
    mask = least <= _between(_between(similarity, rows).T, columns).T
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


def _between(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of (h, w) at places between them, interpolated."""
    first = np.floor(places).astype(np.intp)
    second = np.minimum(first + 1, len(values) - 1)
    share = (places - first).astype(np.float32)[:, None]
    mixed: NDArray[np.float32] = values[first] * (1 - share)
    mixed += values[second] * share
    return mixed


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
    found = np.argwhere(mask)
    if not len(found):
        return np.zeros((0, 2))
    # Nothing outside of the box around the mask matters, and that may be a small part.
    corner, end = found.min(axis=0), found.max(axis=0) + 1
    inside = mask[corner[0] : end[0], corner[1] : end[1]]
    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    deepest = float(depth.max())
    points: list[tuple[int, int]] = []
    rows, columns = np.ogrid[: depth.shape[0], : depth.shape[1]]
    while len(points) < most:
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        # Further points are worth while only where the object is nearly as wide.
        if depth[y, x] < max(0.5 * deepest, 0.5):
            break
        points.append((int(y), int(x)))
        depth = np.where(np.hypot(rows - y, columns - x) < 2 * deepest, 0.0, depth)
    return np.array(points, np.float64).reshape(-1, 2) + corner
