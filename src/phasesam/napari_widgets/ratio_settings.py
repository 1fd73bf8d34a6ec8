"""The folded-away part of the *Phase ratio* dock: what is wished beside the shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QSpinBox

from phasesam.engines.ratio_guidance import RatioConfig

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock


class RatioSettings:
    """Rows in the advanced part of a dock.

    Parameters
    ----------
    dock : Dock
        Gets the rows.
    on_change : callable
        Called without arguments after a change.
    """

    def __init__(self, dock: Dock, on_change: Callable[[], None]) -> None:
        self.smoothing = _pixels(50, "none")
        self.smallest = _pixels(100_000, "any")
        dock.add_advanced(
            "Smoothing",
            self.smoothing,
            "Radius within which the phases are smoothed before the shares are met, except\n"
            "across edges of the image, in pixels.",
        )
        dock.add_advanced(
            "Smallest region",
            self.smallest,
            "Pixels that a connected region has at least, as far as the shares, which hold all\n"
            "the same, allow.",
        )
        self.fewest = QCheckBox("Fewest changes")
        dock.add_advanced(
            "",
            self.fewest,
            "Change as few pixels as the shares allow, instead of making the most likely map:\n"
            "safer where a request contradicts the image.",
        )
        self.fewest.toggled.connect(lambda _: on_change())
        for spin in (self.smoothing, self.smallest):
            spin.editingFinished.connect(on_change)

    @property
    def config(self) -> RatioConfig:
        """What is set."""
        return RatioConfig(self.smoothing.value(), self.smallest.value(), self.fewest.isChecked())


def _pixels(most: int, none: str) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(0, most)
    spin.setSuffix(" px")
    spin.setSpecialValueText(none)
    return spin
