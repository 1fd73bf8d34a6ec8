"""Area fraction of each phase of a map, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.phase_fraction import PhaseFraction, phase_fraction

Plane = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ShareQuestion:
    """Which pixels to count; answered in a worker.

    Attributes
    ----------
    labels : (..., h, w) integer array
        The map; 0 is what was not mapped and does not count.
    values : tuple of int
        Values of the classes.
    plane : tuple of int or None
        Which plane; None for all that were mapped.
    """

    labels: NDArray[Any]
    values: tuple[int, ...]
    plane: Plane | None

    def answer(self) -> dict[int, PhaseFraction]:
        """Count; empty if nothing was mapped there."""
        if self.plane is not None:
            counted = np.array(self.labels[self.plane])
        else:
            planes = [p for p in np.ndindex(self.labels.shape[:-2]) if self.labels[p].any()]
            if not planes:
                return {}
            counted = np.stack([self.labels[plane] for plane in planes])
        region = counted > 0
        if not region.any():
            return {}
        return {value: phase_fraction(counted == value, region) for value in self.values}


def share_text(fraction: PhaseFraction) -> tuple[str, str]:
    """Write a fraction and its interval: "34.1 %" and "31.9–36.4 %"."""
    words = f"{100 * fraction.fraction:.1f}\u00a0%"
    if not np.isfinite(fraction.low):
        return words, ""
    return words, f"{100 * fraction.low:.1f}–{100 * fraction.high:.1f}\u00a0%"
