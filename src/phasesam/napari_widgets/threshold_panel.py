"""The sliders of *Automatic masks*: thresholds over the histograms of all candidates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from phasesam.core.types import PixelSize
from phasesam.napari_widgets.histogram_bar import SliderConfig
from phasesam.napari_widgets.histogram_slider import HistogramSlider
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from phasesam.engines.automatic_config import FilterConfig
    from phasesam.napari_widgets.candidate_filter import FoundCandidates

IOU = SliderConfig(
    "Predicted IoU",
    "How sure the model is of a mask, 0–1.\n"
    "Higher: fewer and safer masks. Lower: more masks, more of them wrong.",
)
STABILITY = SliderConfig(
    "Stability",
    "How little the outline moves when the model's cut-off is shifted, 0–1.\n"
    "Higher: masks with a vague outline disappear.",
)
OFFSET = SliderConfig(
    "Stability offset",
    "How far the cut-off is shifted for the stability, in logits.\n"
    "Larger: the test is harder, and only masks with a sharp outline pass.",
    maximum=3.0,
    decimals=1,
    keep="all",
)
AREA = SliderConfig(
    "Area",
    "Masks smaller or larger than this disappear.\nThe axis is logarithmic.",
    maximum=1e12,
    decimals=0,
    keep="between",
    logarithmic=True,
    open_top=True,
)
OVERLAP = SliderConfig(
    "Overlap",
    "Of two masks that overlap more than this (0–1), the worse one goes.\n"
    "Lower: fewer doubles. Higher: masks may lie on each other.\n"
    "What is compared is chosen under Advanced.",
    keep="below",
)
NESTED = (
    ("outer", "keep outer", "A mask that lies inside another one goes."),
    ("inner", "inner", "A mask that contains others goes; the parts stay."),
    ("both", "both", "Masks inside others stay and lie on top of them."),
)


class ThresholdPanel(QWidget):
    """Five sliders and the nesting rule; reads and writes a `FilterConfig`.

    Attributes
    ----------
    changed : Signal()
        With every step of a handle while it is dragged, and after other changes.
    released : Signal()
        When the user has finished one change.
    """

    changed = Signal()
    released = Signal()

    def __init__(self, config: FilterConfig, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._base = config
        self._pixel_size = PixelSize()
        self._offset_shown = math.nan
        self._overlap_kind = "box"
        self._found: FoundCandidates | None = None
        self.iou = HistogramSlider(IOU)
        self.stability = HistogramSlider(STABILITY)
        self.offset = HistogramSlider(OFFSET)
        self.area = HistogramSlider(AREA)
        self.overlap = HistogramSlider(OVERLAP)
        self.area.set_view(0, 1_000_000)
        self.area_unit = QComboBox()
        self.area_unit.addItems(["px", "µm²"])
        self.area_unit.setToolTip("Unit of the area; µm² needs an image with a pixel size.")
        self.area_unit.currentIndexChanged.connect(self._show_area_unit)
        self.area.beside.addWidget(self.area_unit)
        self.nested = ToggleRow(NESTED, columns=3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for slider in self.sliders:
            layout.addWidget(slider)
            slider.value_changed.connect(self.changed)
            slider.released.connect(self.released)
        row = QHBoxLayout()
        label = QLabel("Nested")
        label.setMinimumWidth(self.iou.title.minimumWidth())
        row.addWidget(label)
        row.addWidget(self.nested)
        row.addStretch(1)
        layout.addLayout(row)
        self.nested.chosen.connect(self._on_nested)
        self.area_unit.setEnabled(False)
        self._show_area_unit()
        self.set_config(config)

    @property
    def sliders(self) -> tuple[HistogramSlider, ...]:
        """All sliders from top to bottom."""
        return self.iou, self.stability, self.offset, self.area, self.overlap

    def config(self) -> FilterConfig:
        """Return the thresholds as they stand."""
        low, high = self.area.values()
        return self._base.changed(
            pred_iou=self.iou.value(),
            stability=self.stability.value(),
            stability_offset=self.offset.value(),
            min_area=round(low),
            max_area=None if math.isinf(high) else round(high),
            nested=self.nested.current,
            **self._overlap_fields(),
        )

    def _overlap_fields(self) -> dict[str, Any]:
        """Give the settings for the way of comparing masks that the slider stands for."""
        if self._overlap_kind == "smaller":
            return {"overlap": self.overlap.value()}
        return {"nms": self.overlap.value(), "nms_kind": self._overlap_kind, "overlap": 1.0}

    def set_config(self, config: FilterConfig) -> None:
        """Set all thresholds without emitting a signal; other fields are kept for `config`."""
        self._base = config
        self.iou.set_values(config.pred_iou)
        self.stability.set_values(config.stability)
        self.offset.set_values(config.stability_offset)
        self.area.set_values(
            config.min_area, math.inf if config.max_area is None else config.max_area
        )
        smaller = config.overlap < 1.0
        self._overlap_kind = "smaller" if smaller else config.nms_kind
        self.overlap.set_values(config.overlap if smaller else config.nms)
        self._show_overlaps()
        self.nested.set_current(config.nested)
        self.refresh_stability()

    @property
    def options(self) -> tuple[str, bool]:
        """Settings that have no slider, see `set_options`."""
        return self._overlap_kind, self._base.touching_edge

    def set_options(self, overlap_kind: str, touching_edge: bool) -> None:
        """Choose what the overlap slider compares, and whether masks at the edge stay.

        Parameters
        ----------
        overlap_kind : {"box", "mask", "smaller"}
            The IoU of the boxes, the IoU of the masks, or the shared part of the smaller
            mask.
        touching_edge : bool
            Whether masks that touch the edge of the image stay.
        """
        self._overlap_kind = overlap_kind
        self._base = self._base.changed(touching_edge=touching_edge)
        self._show_overlaps()

    def _show_overlaps(self) -> None:
        """Draw the histogram only where it is of what the slider compares."""
        shown = self._found is not None and self._overlap_kind == "box"
        self.overlap.set_samples(self._found.overlaps if shown and self._found else ())

    def set_image(self, pixel_size: PixelSize, n_pixels: int) -> None:
        """Fit the area slider to an image; µm² where it has a pixel size, and at first."""
        self.area.set_view(0, max(2, n_pixels))
        if pixel_size == self._pixel_size:
            return
        self._pixel_size = pixel_size
        self.area_unit.setEnabled(pixel_size.is_physical)
        self.area_unit.setCurrentIndex(int(pixel_size.is_physical))
        self._show_area_unit()

    def show_found(self, found: FoundCandidates | None) -> None:
        """Draw the histograms of a run; None leaves bare sliders."""
        self._found = found
        if found is None or len(found.candidates) == 0:
            for slider in self.sliders:
                slider.set_samples(())
            return
        candidates = found.candidates
        # Below one half there is little to choose; the number box still goes down to the floor.
        self.iou.set_view(min(max(float(candidates.floor), 0.5), self._base.pred_iou, 0.95), 1.0)
        self.iou.set_samples(candidates.scores)
        self.area.set_samples(candidates.areas)
        self._show_overlaps()
        self.refresh_stability(force=True)

    def refresh_stability(self, force: bool = False) -> None:
        """Count the stability anew if the offset has changed."""
        offset = self.offset.value()
        if self._found is None or (offset == self._offset_shown and not force):
            return
        self._offset_shown = offset
        values = np.asarray(self._found.candidates.stability(offset))
        if len(values):
            low = math.floor(float(np.nanquantile(values, 0.02)) * 10.0) / 10.0
            self.stability.set_view(min(max(low, 0.0), 0.9), 1.0)
        self.stability.set_samples(values)

    def _on_nested(self, _key: str) -> None:
        self.changed.emit()
        self.released.emit()

    def _show_area_unit(self, _index: int = 0) -> None:
        if self.area_unit.currentIndex() == 1 and self._pixel_size.is_physical:
            area = self._pixel_size.area
            # Enough digits to tell ten pixels; the unit stands beside the boxes.
            decimals = min(6, max(0, math.ceil(-math.log10(10.0 * area))))
            self.area.set_unit(area, "", decimals)
        else:
            self.area.set_unit(1.0, "", 0)
