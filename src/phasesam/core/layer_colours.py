"""Colours of tokens from three scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ColourSpace = Literal["rgb", "lab"]

_PERCENT = (2.0, 98.0)
_MIDDLE = 0.5
_GREY = 40
# Lightness, and how far the two other axes of CIELAB go: all of it is within sRGB's reach.
_LIGHTNESS, _REACH = (25.0, 85.0), 45.0


@dataclass(frozen=True, eq=False)
class Limits:
    """Scores that get the darkest and the brightest colour.

    Attributes
    ----------
    low, high : (d,) float32 array
        By direction.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def of(cls, scores: ArrayLike) -> Limits:
        """Take the 2nd and 98th percentile of scores (n, d): single tokens may be far off."""
        low, high = np.percentile(np.asarray(scores, np.float32), _PERCENT, axis=0)
        return cls(low.astype(np.float32), high.astype(np.float32))

    def scaled(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (..., d) within 0–1; a half where all are equal."""
        width = self.high - self.low
        flat = width <= 0
        result: NDArray[np.float32] = scores - self.low
        result /= np.where(flat, 1.0, width).astype(np.float32)
        result[..., flat] = _MIDDLE
        return np.clip(result, np.float32(0), np.float32(1))


def colours(
    scores: NDArray[np.float32], limits: Limits, space: ColourSpace = "rgb"
) -> NDArray[np.uint8]:
    """Colour tokens.

    Parameters
    ----------
    scores : (..., d) float32 array
        Of up to three directions; those that are missing stay in the middle.
    limits : Limits
        Shared by all pictures and models that are to be compared.
    space : {"rgb", "lab"}
        Scores as red, green and blue, or as lightness and the two axes of CIELAB, in which
        equal differences look equal.

    Returns
    -------
    (..., 3) uint8 array
    """
    values = limits.scaled(scores)
    missing = 3 - values.shape[-1]
    if missing:
        rest = np.full((*values.shape[:-1], missing), _MIDDLE, np.float32)
        values = np.concatenate([values, rest], axis=-1)
    if space == "lab":
        from skimage.color import lab2rgb

        lightness = _LIGHTNESS[0] + (_LIGHTNESS[1] - _LIGHTNESS[0]) * values[..., :1]
        chroma = _REACH * (2 * values[..., 1:] - 1)
        values = lab2rgb(np.concatenate([lightness, chroma], axis=-1))
    return np.rint(255 * values).astype(np.uint8)


def greyed(picture: NDArray[np.uint8], background: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Show a background in one dark grey."""
    result = picture.copy()
    result[background] = _GREY
    return result
