"""Places of tokens: points spread over a picture, and the classes that tokens see."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

NO_LABEL = -1

_T = TypeVar("_T", bound=np.generic)

# Of the plastic number: the additive recurrence in two dimensions that fills a square most evenly.
_STEPS = (0.7548776662466927, 0.5698402909980532)
_LEAST_KNOWN = 0.5


def spread_points(n: int) -> NDArray[np.float64]:
    """Place points evenly over the unit square, the same ones every time.

    Parameters
    ----------
    n : int
        Number of points; the first ones of more are these.

    Returns
    -------
    (n, 2) float64 array
        Within 0–1. After Roberts, "The unreasonable effectiveness of quasirandom sequences"
        (2018).
    """
    return (0.5 + np.arange(1, n + 1)[:, None] * np.array(_STEPS)) % 1.0


def tokens_at(
    points: NDArray[np.float64], seen: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the tokens at points of the unit square.

    Parameters
    ----------
    points : (n, 2) float array
        From `spread_points`.
    seen : (int, int)
        Rows and columns of tokens that cover the square.
    """
    index = (points * np.array(seen)).astype(np.intp)
    return index[:, 0], index[:, 1]


def token_labels(
    labels: NDArray[np.integer], grid: tuple[int, int], side: float
) -> NDArray[np.int32]:
    """Class that most pixels of each token have.

    Parameters
    ----------
    labels : (H, W) integer array
        Index of the class of each pixel of the picture; negative where it is unknown.
    grid : (int, int)
        Rows and columns of tokens, the first at the corner.
    side : float
        Side of a token in pixels.

    Returns
    -------
    (rows, columns) int32 array
        `NO_LABEL` where most of a token is unknown, or outside the picture.
    """
    n = int(labels.max(initial=NO_LABEL)) + 1
    if n <= 0:
        return np.full(grid, NO_LABEL, np.int32)
    edges = [
        np.minimum(np.round(np.arange(count + 1) * side).astype(int), length)
        for count, length in zip(grid, labels.shape, strict=True)
    ]
    counts = np.stack([_sums(labels == k, edges[0], edges[1]) for k in range(n)])
    best = counts.argmax(axis=0).astype(np.int32)
    sizes = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    best[(counts.sum(axis=0) < _LEAST_KNOWN * sizes) | (sizes == 0)] = NO_LABEL
    return best


def resampled(values: NDArray[_T], grid: tuple[int, ...], scale: float) -> NDArray[_T]:
    """Bring values of tokens to tokens of another size.

    Parameters
    ----------
    values : (h, w, ...) array
        Of each token, the first at the corner of the picture.
    grid : (int, int)
        Rows and columns of the others, the first at the same corner.
    scale : float
        Side of one of the others over the side of these.

    Returns
    -------
    (rows, columns, ...) array
        Of the token that the centre of each of the others lies in.
    """
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * scale).astype(np.intp), m - 1)
        for n, m in zip(grid, values.shape[:2], strict=True)
    )
    return values[np.ix_(rows, columns)]


def _sums(
    mask: NDArray[np.bool_], rows: NDArray[np.int_], columns: NDArray[np.int_]
) -> NDArray[np.int64]:
    """Pixels of a mask within each field of a grid."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=table[1:, 1:])
    corners = table[np.ix_(rows, columns)]
    return np.diff(np.diff(corners, axis=0), axis=1)
