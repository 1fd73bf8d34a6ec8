"""Top of *Automatic masks*: preset, grid, region, and the rare settings of the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from phasesam.engines.presets import PRESETS, Preset
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from phasesam.engines.automatic_config import AutomaticConfig

_CUSTOM = "Custom"
# SAM's own settings also keep a mask of the whole background.
_FIRST = "particles"
_REGION = (
    ("whole", "whole", "Look for objects in the whole image (without an SEM data bar)."),
    ("drawn", "drawn", "Look for objects inside shapes that you draw on the image."),
)


class SearchPanel(QWidget):
    """What *Find masks* will do; knows neither viewer nor layers."""

    find_requested = Signal()
    preset_chosen = Signal()
    filter_option_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.presets = narrow_combo("Good settings for a kind of image; change them as you like.")
        for key, preset in PRESETS.items():
            self.presets.addItem(preset.title, key)
            self.presets.setItemData(
                self.presets.count() - 1,
                preset.description,
                Qt.ItemDataRole.ToolTipRole,
            )
        self._preset = PRESETS[_FIRST]
        self.presets.setCurrentIndex(self.presets.findData(_FIRST))
        self.points = QSpinBox()
        self.points.setRange(2, 128)
        self.region = ToggleRow(_REGION, columns=2)
        self.region.set_current("whole")
        self.find_button = QPushButton("Find masks")
        self.find_button.setToolTip(
            "Ask the model for a mask at every point of the grid. Runs in the background;\n"
            "the sliders below need no further run."
        )
        self._make_advanced()
        self._lay_out()
        self._show_preset()
        self.presets.activated.connect(self._on_preset)
        self.points.valueChanged.connect(self._explain_points)
        self.find_button.clicked.connect(self.find_requested)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.addWidget(QLabel("Preset"), 0, 0)
        grid.addWidget(self.presets, 0, 1, 1, 3)
        grid.addWidget(QLabel("Points per side"), 1, 0)
        grid.addWidget(self.points, 1, 1)
        grid.addWidget(QLabel("Region"), 1, 2)
        grid.addWidget(self.region, 1, 3)
        grid.addWidget(self.find_button, 2, 0, 1, 4)
        grid.setColumnStretch(3, 1)

    def _make_advanced(self) -> None:
        self._nms = QComboBox()
        self._nms.addItem("boxes (IoU)", "box")
        self._nms.addItem("masks (IoU)", "mask")
        self._nms.addItem("masks (share of the smaller)", "smaller")
        self._nms.activated.connect(lambda _: self.filter_option_changed.emit())
        self._crops = QSpinBox()
        self._crops.setRange(0, 3)
        self._batch = QSpinBox()
        self._batch.setRange(0, 1024)
        self._batch.setSpecialValueText("automatic")
        self._floor = QDoubleSpinBox()
        self._floor.setRange(0.0, 1.0)
        self._floor.setSingleStep(0.05)
        self._skip = QCheckBox("Skip points inside masks found already")
        self._edge = QCheckBox("Keep masks at the edge of the image")
        self._edge.toggled.connect(lambda _: self.filter_option_changed.emit())
        self._replace = QCheckBox("Keep replaces earlier automatic objects")

    def advanced_rows(self) -> tuple[tuple[str, QWidget, str], ...]:
        """Label, widget and tooltip of the rare settings."""
        return (
            (
                "Compare overlaps of",
                self._nms,
                "How the overlap of two masks is measured: by their boxes (fast), by their\n"
                "pixels (tells long neighbours side by side apart), or by the shared part of\n"
                "the smaller one (also removes pieces of larger masks).",
            ),
            (
                "Crop layers",
                self._crops,
                "Look again at enlarged parts of the image, to find small objects.\n"
                "Each layer takes about four times as long as the one before.",
            ),
            (
                "Points at a time",
                self._batch,
                "How many points the model answers together. Fewer need less memory;\n"
                "the masks stay the same.",
            ),
            (
                "Lowest score kept",
                self._floor,
                "Candidates with a lower predicted IoU are not kept at all;\n"
                "the slider cannot go below this. Lower needs more memory.",
            ),
            (
                "",
                self._skip,
                "Faster: no point is asked for that lies inside a mask of high score.",
            ),
            (
                "",
                self._edge,
                "Objects that the edge cuts have no true size: leave them out for size\n"
                "distributions, keep them for phase fractions.",
            ),
            (
                "",
                self._replace,
                "All automatic objects of the plane go when new ones are kept (Undo brings them\n"
                "back). Otherwise only masks that lie mostly beside the objects are added.",
            ),
        )

    def preset(self) -> Preset:
        """Return the preset chosen last."""
        return self._preset

    def filter_options(self) -> tuple[str, bool]:
        """Return what is compared for overlaps, and whether masks at the edge stay.

        The first is for `ThresholdPanel.set_overlap_kind`.
        """
        return str(self._nms.currentData()), self._edge.isChecked()

    def show_filter_options(self, overlap_kind: str, touching_edge: bool) -> None:
        """Show settings of the filter that have no slider, without emitting a signal."""
        self._nms.setCurrentIndex(max(0, self._nms.findData(overlap_kind)))
        blocker = QSignalBlocker(self._edge)
        self._edge.setChecked(touching_edge)
        blocker.unblock()

    def replaces(self) -> bool:
        """Whether *Keep as Labels* replaces all automatic objects of the plane."""
        return self._replace.isChecked()

    def config(self, region: NDArray[np.bool_] | None = None) -> AutomaticConfig:
        """Return the settings of the search as they stand.

        Raises
        ------
        InvalidSettingError
            If they do not fit together.
        """
        return self._preset.automatic.changed(
            points_per_side=self.points.value(),
            points_per_batch=self._batch.value() or None,
            crop_n_layers=self._crops.value(),
            iou_floor=self._floor.value(),
            skip_covered=self._skip.isChecked(),
            region=region,
        )

    def mark_custom(self, custom: bool) -> None:
        """Show "Custom" while the thresholds are not those of the preset."""
        place = self.presets.findText(_CUSTOM)
        if custom and place < 0:
            self.presets.addItem(_CUSTOM)
            self.presets.setCurrentIndex(self.presets.count() - 1)
        elif not custom and place >= 0:
            self.presets.removeItem(place)
            self.presets.setCurrentIndex(self.presets.findData(self._preset.name))

    def _on_preset(self, index: int) -> None:
        key = self.presets.itemData(index)
        if key is None:
            return
        self._preset = PRESETS[key]
        self.mark_custom(False)
        self._show_preset()
        self.preset_chosen.emit()

    def _show_preset(self) -> None:
        automatic = self._preset.automatic
        self.points.setValue(automatic.points_per_side)
        self._crops.setValue(automatic.crop_n_layers)
        self._batch.setValue(automatic.points_per_batch or 0)
        self._floor.setValue(automatic.iou_floor)
        self._skip.setChecked(bool(automatic.skip_covered))
        self.presets.setToolTip(self._preset.description)
        self._explain_points()

    def _explain_points(self, _value: int = 0) -> None:
        n = self.points.value()
        self.points.setToolTip(
            f"The model is asked at a grid of {n} × {n} = {n * n} points.\n"
            "More points find smaller objects and take longer."
        )
