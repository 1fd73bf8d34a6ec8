"""Find the data bar that electron microscopes print below the micrograph.

A data bar is a band across the whole width at the bottom: one flat colour without any
noise, with text and a scale bar on it. Detection rests on three things that hold for
all vendors: the rows of the band are flat while those of a micrograph are noisy, the
change from one to the other happens within a row, and there is writing in the band.
When in doubt the answer is "no bar": a bar that is overlooked costs a few wrong
objects, a micrograph that is cut costs data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.images import check_image

_LARGEST_SHARE = 0.3
_SMALLEST_HEIGHT = 10
_ROWS_ABOVE = 6
_CHUNK_VALUES = 4_000_000
_SAMPLE_VALUES = 500_000


@dataclass(frozen=True)
class _Strictness:
    """Thresholds for one way of looking at rows; shares of a row, 0–1."""

    tolerance: float  # of the intensity range: still the same colour
    use_neighbours: bool  # also count pixels equal to their left neighbour as flat
    clean: float  # the first row of a bar is at least so flat
    above: float  # the rows above it are at most so flat, on average
    nearest: float  # and the last one of them is at most so flat
    blank: float  # rows between the lines of text are at least so flat
    blanks: float  # and they make up at least this share of the bar


# Bars in TIFF and PNG files are flat to the last bit; JPEG needs some tolerance, and with
# it neighbours in any smooth image are equal, so that only the background colour counts.
# A micrograph with a clipped black background is nearly flat itself, but never altogether.
_LOSSLESS = _Strictness(0.0, True, clean=0.9, above=0.6, nearest=0.75, blank=0.9, blanks=0.15)
_LOSSY = _Strictness(0.04, False, clean=0.8, above=0.5, nearest=0.75, blank=0.9, blanks=0.15)
_CLIPPED = _Strictness(0.0, True, clean=0.998, above=0.96, nearest=0.98, blank=0.97, blanks=0.25)


def detect_data_bar(image: ArrayLike) -> int | None:
    """Find the first row of the data bar at the bottom of a scanning electron micrograph.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        One plane of any real dtype.

    Returns
    -------
    int or None
        Rows from here on are not micrograph; None when there is no bar.

    Raises
    ------
    InvalidImageError
        If it is not one plane of real numbers.
    """
    array = check_image(image)
    height, width = array.shape[:2]
    if height < 4 * _SMALLEST_HEIGHT or width < 64:
        return None
    first = height - int(height * _LARGEST_SHARE) - _ROWS_ABOVE
    lower = array[first:]
    background, span = _background(lower)
    if span == 0:
        return None
    tops = []
    if (_flatness(lower[-_SMALLEST_HEIGHT:], background, span, _LOSSY) < 0.4).mean() > 0.5:
        return None  # most images end here, before all of the lower part is read
    for strictness in (_LOSSLESS, _LOSSY, _CLIPPED):
        top = _find_step(_flatness(lower, background, span, strictness), strictness)
        if top is not None and _has_writing(lower[top:], background, span):
            tops.append(top)
    if not tops:
        return None
    # A step inside the bar may look like its beginning, never the other way round.
    return _sharpest_row(lower, first, first + min(tops))


def _grey(rows: NDArray[Any]) -> NDArray[np.float64]:
    """One number per pixel that is equal for equal colours."""
    if rows.ndim == 3:
        rows = rows[..., :3].sum(axis=2, dtype=np.float64)
    return np.nan_to_num(rows.astype(np.float64, copy=False), nan=0.0, posinf=0.0, neginf=0.0)


def _background(lower: NDArray[Any]) -> tuple[float, float]:
    """Most frequent value of the last rows, and the range of values in the lower part."""
    last = max(_SMALLEST_HEIGHT // 2, lower.shape[0] // 15)
    step = max(1, last * lower.shape[1] // _SAMPLE_VALUES)
    values, counts = np.unique(_grey(lower[-last:, ::step]), return_counts=True)
    step = max(1, lower.shape[0] * lower.shape[1] // (4 * _SAMPLE_VALUES))
    sample = _grey(lower[::4, ::step])
    low, high = min(sample.min(), values[0]), max(sample.max(), values[-1])
    return float(values[np.argmax(counts)]), float(high - low)


def _flatness(
    lower: NDArray[Any], background: float, span: float, strictness: _Strictness
) -> NDArray[np.float64]:
    """Share of flat pixels in each row, (n,)."""
    flat = np.zeros(lower.shape[0])
    tolerance = strictness.tolerance * span
    step = max(1, _CHUNK_VALUES // lower.shape[1])
    for start in range(0, lower.shape[0], step):
        rows = _grey(lower[start : start + step])
        share = (np.abs(rows - background) <= tolerance).mean(axis=1)
        if strictness.use_neighbours:
            share = np.maximum(share, (rows[:, 1:] == rows[:, :-1]).mean(axis=1))
        flat[start : start + step] = share
    return flat


def _find_step(flat: NDArray[np.float64], strictness: _Strictness) -> int | None:
    """First row of a flat band that reaches the bottom and begins all at once."""
    for top in range(_ROWS_ABOVE, len(flat) - _SMALLEST_HEIGHT + 1):
        if flat[top] < strictness.clean or flat[top - 1] > strictness.nearest:
            continue
        band, above = flat[top:], flat[top - _ROWS_ABOVE : top]
        if above.mean() > strictness.above:
            continue
        blank = band >= strictness.blank
        # Rows through dense small print are not very flat, but there are blank ones between.
        if (band >= 0.4).mean() > 0.85 and band.mean() > 0.7 and blank.mean() > strictness.blanks:
            return top
    return None


def _sharpest_row(lower: NDArray[Any], first: int, top: int) -> int:
    """Undo the blur of JPEG, which lets a bar seem to begin with the next block of 8 rows."""
    if top % 8:
        return top
    start = max(0, top - first - 8)
    rows = _grey(lower[start : top - first + 1])
    return first + start + 1 + int(np.argmax(np.abs(np.diff(rows, axis=0)).mean(axis=1)))


def _has_writing(band: NDArray[Any], background: float, span: float) -> bool:
    """Tell whether there are letters on the band: many narrow strokes of one other colour."""
    rows = _grey(band)
    difference = np.abs(rows - background)
    ink = difference > 0.15 * span
    share = ink.mean()
    if not 0.003 < share < 0.5:
        return False
    strokes = (ink[:, 1:] & ~ink[:, :-1]).sum(axis=1)
    if np.sort(strokes)[-3] < 8:
        return False
    columns = np.flatnonzero(ink[strokes >= 4].any(axis=0))
    if np.ptp(columns) < 0.15 * band.shape[1]:
        return False
    # Letters share one colour; grains and dust have shades.
    counts = np.histogram(difference[ink] / span, bins=50, range=(0.0, 1.0))[0]
    alike = np.convolve(counts, np.ones(8), mode="same").max() / counts.sum()
    return bool(alike > 0.35)
