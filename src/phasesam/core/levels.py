"""How bright an image is, and how much that varies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIP_ROWS = 256
_LEAST_DEVIATION = 5.0


@dataclass(frozen=True)
class Levels:
    """Brightness of an image.

    Attributes
    ----------
    mean, deviation : float
        Mean and standard deviation of the intensities, 0–255; the deviation at least 5.
    """

    mean: float
    deviation: float


def intensity_levels(rgb: NDArray[np.uint8]) -> Levels:
    """Measure the brightness of an image, (h, w, 3) uint8, over all pixels and colours."""
    counts = np.zeros(256, np.int64)
    # In strips: counting makes a wide copy of what it counts.
    for start in range(0, len(rgb), _STRIP_ROWS):
        strip = rgb[start : start + _STRIP_ROWS]
        counts += np.bincount(strip.reshape(-1), minlength=256)
    values, total = np.arange(256.0), counts.sum()
    mean = float(counts @ values / total)
    variance = float(counts @ (values - mean) ** 2 / total)
    return Levels(mean, max(math.sqrt(variance), _LEAST_DEVIATION))
