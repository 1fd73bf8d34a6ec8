"""Size distribution and phase fraction of the objects, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.phase_fraction import PhaseFraction, phase_fraction
from phasesam.core.size_distribution import size_distribution
from phasesam.napari_widgets.candidate_filter import grouped, objects_text
from phasesam.napari_widgets.size_histogram import short_number

if TYPE_CHECKING:
    from phasesam.core.measurements import ObjectTable
    from phasesam.session import SegmentationSession
    from phasesam.session.objects import Box, Plane


@dataclass(frozen=True)
class SizeSummary:
    """What the size histogram shows.

    Attributes
    ----------
    diameters : (n,) float64 array
        Equivalent diameters.
    unit : str
        ``"µm"`` or ``"px"``.
    marks : (float, float, float)
        D10, D50 and D90 by number.
    text : str
        The same in words.
    """

    diameters: NDArray[np.float64]
    unit: str
    marks: tuple[float, float, float]
    text: str


def summarise_sizes(table: ObjectTable, total: int) -> SizeSummary:
    """Describe the size distribution of the objects shown, of ``total`` objects there are."""
    physical = "equivalent_diameter_um" in table
    diameters = table["equivalent_diameter_um" if physical else "equivalent_diameter_px"]
    unit = "µm" if physical else "px"
    sizes = size_distribution(table)
    marks = (sizes.d10, sizes.d50, sizes.d90)
    if total == 0:
        return SizeSummary(diameters, unit, marks, "No objects yet.")
    some = "" if len(table) == total else f"{grouped(len(table))} of "
    words = f"{some}{objects_text(total)}"
    if len(table):
        words += f" · D50 {short_number(sizes.d50)} {unit}"
    cut = int(np.count_nonzero(table["touches_edge"]))
    if cut:
        words += f" · {grouped(cut)} at the edge"
    return SizeSummary(diameters, unit, marks, words)


@dataclass(frozen=True)
class FractionQuestion:
    """Which pixels to count; may be answered in a worker.

    Attributes
    ----------
    labels : (..., h, w) int array
        A view of the session's labels.
    planes : tuple of tuple of int
        Which planes count.
    field_of_view : (int, int, int, int) or None
        Box ``(y0, x0, y1, x1)`` without the data bar.
    """

    labels: NDArray[np.int32]
    planes: tuple[Plane, ...]
    field_of_view: Box | None

    @classmethod
    def of(cls, session: SegmentationSession, plane: Plane | None) -> FractionQuestion:
        """Ask about one plane, or about all planes of a stack that have objects."""
        if plane is not None:
            planes: tuple[Plane, ...] = (plane,)
        elif len(session.shape) == 2:
            planes = ((),)
        else:
            planes = tuple(sorted({record.plane for record in session.objects}))
        return cls(session.labels, planes, session.field_of_view)

    @property
    def pixels(self) -> int:
        """Number of pixels to be counted."""
        return len(self.planes) * self.labels.shape[-2] * self.labels.shape[-1]

    def answer(self) -> PhaseFraction | None:
        """Count; None if there is no plane to count on."""
        if not self.planes:
            return None
        height, width = self.labels.shape[-2:]
        y0, x0, y1, x1 = self.field_of_view or (0, 0, height, width)
        return phase_fraction(
            np.stack([self.labels[plane][y0:y1, x0:x1] != 0 for plane in self.planes])
        )

    def text(self, fraction: PhaseFraction | None) -> str:
        """Say the answer: "34.1 % of the image (95 %: 31.9–36.4 %)"."""
        if fraction is None:
            return ""
        where = "the image" if self.labels.ndim == 2 else f"{len(self.planes)} planes"
        if len(self.planes) == 1 and self.labels.ndim > 2:
            where = "the plane"
        words = f"{100 * fraction.fraction:.1f} % of {where}"
        if np.isfinite(fraction.low):
            words += (
                f" ({100 * fraction.confidence:.0f} %: "
                f"{100 * fraction.low:.1f}–{100 * fraction.high:.1f} %)"
            )
        return words.replace(" %", "\u00a0%")


FRACTION_TOOLTIP = (
    "Share of the image (without the data bar) that lies under objects. The interval tells\n"
    "how far another field of view of the same size may be from it: it comes from the scatter\n"
    "between parts of this image. In a stack, planes without objects do not count."
)
