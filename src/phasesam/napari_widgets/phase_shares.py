"""Area fraction of each phase of a map, with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError
from phasesam.core.phase_fraction import PhaseFraction, phase_fractions

if TYPE_CHECKING:
    from phasesam.core.types import StopCallback

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

    def answer(self, should_stop: StopCallback) -> dict[int, PhaseFraction]:
        """Count; empty if nothing was mapped there.

        Raises
        ------
        CancelledError
            If ``should_stop()`` is true.
        """
        return phase_fractions(self._planes(should_stop), self.values)

    def _planes(self, should_stop: StopCallback) -> Iterator[NDArray[Any]]:
        stack = np.ndindex(self.labels.shape[:-2]) if self.plane is None else [self.plane]
        for plane in stack:
            if should_stop():
                raise CancelledError("counting was stopped")
            yield np.asarray(self.labels[plane])


def share_text(fraction: PhaseFraction) -> tuple[str, str]:
    """Write a fraction and its interval: "34.1 %" and "31.9–36.4 %"."""
    words = f"{100 * fraction.fraction:.1f}\u00a0%"
    if not np.isfinite(fraction.low):
        return words, ""
    return words, f"{100 * fraction.low:.1f}–{100 * fraction.high:.1f}\u00a0%"
