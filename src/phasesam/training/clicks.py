"""Simulated prompts for training: where a user would click or draw a box next.

As in SAM's own training (Kirillov et al., "Segment Anything", 2023, appendix A): a start by a
random point or a noisy box, then points from where the mask is wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

_BOX_NOISE = 0.1
_MOST_BOX_NOISE = 20.0


def click_in(region: NDArray[np.bool_], rng: np.random.Generator, centre: bool) -> tuple[int, int]:
    """Choose a pixel of a region.

    Parameters
    ----------
    region : (h, w) bool array
        Not empty.
    rng : numpy Generator
        Source of chance.
    centre : bool
        The pixel farthest from the edge of the region, instead of any.

    Returns
    -------
    (int, int)
        Row and column.
    """
    rows, columns = np.nonzero(region)
    if not centre:
        pick = int(rng.integers(len(rows)))
        return int(rows[pick]), int(columns[pick])
    top, left = int(rows.min()), int(columns.min())
    crop = np.pad(region[top : rows.max() + 1, left : columns.max() + 1], 1)
    flat = int(np.argmax(distance_transform_edt(crop)))
    row, column = divmod(flat, crop.shape[1])
    return top + row - 1, left + column - 1


def correction(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    rng: np.random.Generator,
    centre: bool,
) -> tuple[tuple[int, int], int]:
    """Choose the next click on an object.

    Parameters
    ----------
    predicted, truth, valid : (h, w) bool array
        The mask so far, the object, and where anything is known.
    rng : numpy Generator
        Source of chance.
    centre : bool
        Whether to click at the middle of the largest error.

    Returns
    -------
    (int, int), int
        Row and column; 1 where the object is missing, 0 where the mask is too large. Without
        any error, a pixel of the object.
    """
    missing, extra = truth & ~predicted & valid, ~truth & predicted & valid
    if not (missing.any() or extra.any()):
        return click_in(truth, rng, centre=False), 1
    if not centre:
        place = click_in(missing | extra, rng, centre=False)
        return place, int(truth[place])
    in_missing, in_extra = _depth(missing), _depth(extra)
    region, label = (missing, 1) if in_missing > in_extra else (extra, 0)
    return click_in(region, rng, centre=True), label


def _depth(region: NDArray[np.bool_]) -> float:
    """Distance of the innermost pixel of a region from outside."""
    if not region.any():
        return 0.0
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    crop = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(distance_transform_edt(np.pad(crop, 1)).max())


def noisy_box(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, ...]:
    """Draw a box around an object as a hand does: off by a tenth of its side.

    Returns
    -------
    tuple of four floats
        ``(x0, y0, x1, y1)`` in pixels of `mask`.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
    side = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    noise = rng.normal(0.0, 1.0, 4) * _BOX_NOISE * side
    box += np.clip(noise, -_MOST_BOX_NOISE, _MOST_BOX_NOISE)
    limit = np.array([mask.shape[1], mask.shape[0]] * 2)
    return tuple(float(value) for value in np.clip(box, 0, limit))
