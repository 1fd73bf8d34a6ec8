"""Single masks: stability of logits, small regions, components."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.errors import InvalidMaskError, InvalidSettingError

EIGHT = np.ones((3, 3), dtype=np.bool_)
"""Neighbourhood of a pixel that includes the diagonals."""


def stability_score(
    logits: NDArray[np.floating[Any]], threshold: float = 0.0, offset: float = 1.0
) -> NDArray[np.float32]:
    """Tell how little a mask changes when its threshold moves.

    The number of pixels above ``threshold + offset`` divided by the number above
    ``threshold - offset``, as in Kirillov et al., "Segment Anything", 2023.

    Parameters
    ----------
    logits : (..., h, w) float array
        Output of the mask decoder.
    threshold, offset : float
        In units of the logits; ``offset`` must not be negative.

    Returns
    -------
    (...) float32 array
        0–1; 0 where no pixel is above even the lower threshold.

    Raises
    ------
    InvalidMaskError
        If ``logits`` has fewer than two axes.
    InvalidSettingError
        If ``offset`` is negative.
    """
    logits = np.asarray(logits)
    if logits.ndim < 2:
        raise InvalidMaskError(f"expected logits of shape (..., h, w), got {logits.shape}")
    if not offset >= 0:
        raise InvalidSettingError(f"the stability offset must not be negative, got {offset}")
    high = np.count_nonzero(logits > threshold + offset, axis=(-2, -1))
    low = np.count_nonzero(logits > threshold - offset, axis=(-2, -1))
    return (high / np.maximum(low, 1)).astype(np.float32)


def remove_small_regions(
    mask: NDArray[np.bool_], area: int, kind: Literal["holes", "islands"]
) -> tuple[NDArray[np.bool_], bool]:
    """Fill holes or drop islands that are smaller than an area.

    As in segment-anything's post-processing, regions are 8-connected and a mask of
    nothing but small islands keeps its largest one.

    Parameters
    ----------
    mask : (h, w) bool array
        The mask.
    area : int
        Regions of fewer pixels go.
    kind : {"holes", "islands"}
        What to remove. A hole is any background region, the surrounding one included.

    Returns
    -------
    (h, w) bool array, bool
        The new mask, and whether anything changed.

    Raises
    ------
    InvalidMaskError
        If the mask is not two-dimensional.
    InvalidSettingError
        If ``kind`` is unknown.
    """
    if kind not in ("holes", "islands"):
        raise InvalidSettingError(f"kind must be 'holes' or 'islands', got {kind!r}")
    mask = np.asarray(mask) != 0
    if mask.ndim != 2:
        raise InvalidMaskError(f"expected a mask of shape (h, w), got {mask.shape}")
    regions, n = ndimage.label(~mask if kind == "holes" else mask, structure=EIGHT)
    sizes = np.bincount(regions.ravel(), minlength=n + 1)
    small = sizes < area
    small[0] = False
    if not small.any():
        return mask, False
    if kind == "islands" and small[1:].all():
        small[1 + int(np.argmax(sizes[1:]))] = False
    change = small[regions]
    return mask ^ change, bool(change.any())


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest 8-connected part of an (h, w) bool mask."""
    regions, n = ndimage.label(mask, structure=EIGHT)
    if n < 2:
        return np.asarray(mask) != 0
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return regions == int(np.argmax(sizes))
