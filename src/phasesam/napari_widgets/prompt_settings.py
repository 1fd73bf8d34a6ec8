"""The folded part of the Prompt dock: how the image is shown to the model, how masks are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError
from phasesam.core.images import Normalisation, to_rgb8
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.layers import like_plane
from phasesam.napari_widgets.planes import full_resolution, read_plane
from phasesam.napari_widgets.present_object import MaskSettings
from phasesam.napari_widgets.viewer_state import ImageSettings
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.napari_widgets.dock import Dock

_MODES = (
    ("auto", "Automatic", "8-bit images stay as they are, all others use percentiles"),
    ("percentile", "Percentiles", "The darkest and brightest share of the pixels is cut off"),
    ("range", "Fixed range", "Intensities that become black and white, the same on all planes"),
    ("layer", "Contrast limits", "What is black and white in the viewer is so for the model"),
)
_LARGEST = 1e12
_REST_MS = 300


class PromptSettings(QObject):
    """Rows in the folded part of a dock.

    Parameters
    ----------
    dock : Dock
        Gets the rows.
    """

    mask_settings_changed = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self._dock = dock
        self._state = dock.state
        self._lane = Lane(dock)
        self._image: Image | None = None
        self._seen: Any = None
        # Each other normalisation is encoded anew: wait until the slider rests.
        self._limits_timer = QTimer(self)
        self._limits_timer.setSingleShot(True)
        self._limits_timer.setInterval(_REST_MS)
        self._limits_timer.timeout.connect(self._apply)
        self._make_image_rows()
        self._make_mask_rows()
        connect = dock.subscriptions.connect
        connect(self._state.events.image_changed, self._on_image_changed)
        dock.subscriptions.add(self._unfollow)
        self._on_image_changed(self._state.image_layer)

    def mask_settings(self, scale: str) -> MaskSettings:
        """Read how masks are to be made."""
        return MaskSettings(
            scale=scale,
            threshold=self.threshold.value(),
            smoothing=self.smoothing.value(),
            hole_area=self.holes.value(),
        )

    def show_data_bar(self, first_row: int | None) -> None:
        """Say where the data bar was found."""
        text = "Leave out data bar"
        if first_row is not None:
            text += f" (from row {first_row})"
        self.data_bar.setText(text)

    # ------------------------------------------------------------------ rows

    def _make_image_rows(self) -> None:
        self.mode = narrow_combo("How intensities become the 8-bit picture that the model sees")
        for key, title, tip in _MODES:
            self.mode.addItem(title, key)
            self.mode.setItemData(self.mode.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.low, self.high = _limit_box(), _limit_box()
        limits = QWidget()
        row = QHBoxLayout(limits)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.low)
        row.addWidget(self.high)
        self.see = QPushButton("Show what the model sees")
        self.see.setCheckable(True)
        self.data_bar = QCheckBox("Leave out data bar")
        self.data_bar.setChecked(True)
        add = self._dock.add_advanced
        add("Normalisation", self.mode)
        add("Black, white", limits, "Percentiles (0–100 %) or intensities that become black/white")
        add("", self.see, "Adds a layer with the picture as it is given to the model")
        add(
            "",
            self.data_bar,
            "The bar with text and scale at the bottom of an SEM image is not segmented.",
        )
        self.mode.currentIndexChanged.connect(self._on_mode_changed)
        for box in (self.low, self.high):
            box.editingFinished.connect(self._apply)
        self.data_bar.toggled.connect(self._apply)
        self.see.toggled.connect(self._refresh_seen)

    def _make_mask_rows(self) -> None:
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(-10, 10)
        self.threshold.setSingleStep(0.25)
        self.smoothing = QDoubleSpinBox()
        self.smoothing.setRange(0, 50)
        self.smoothing.setSingleStep(0.5)
        self.smoothing.setSuffix(" px")
        self.smoothing.setSpecialValueText("off")
        self.holes = QSpinBox()
        self.holes.setRange(0, 10_000_000)
        self.holes.setSuffix(" px")
        self.holes.setSpecialValueText("off")
        add = self._dock.add_advanced
        add(
            "Mask threshold",
            self.threshold,
            "Lower makes masks larger, higher smaller. 0: a pixel belongs to the object if the\n"
            "model thinks so rather than not (logit).",
        )
        add("Smooth outline", self.smoothing, "Radius in pixels; the area stays the same")
        add("Fill holes up to", self.holes, "Largest hole that is filled, in pixels")
        for box in (self.threshold, self.smoothing, self.holes):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self.mask_settings_changed)

    # ------------------------------------------------------------------ image settings

    def _normalisation(self, image: Image) -> Normalisation:
        mode = self.mode.currentData()
        if mode == "layer":
            low, high = image.contrast_limits
            return Normalisation("range", float(low), float(high))
        if mode == "auto":
            return Normalisation()
        return Normalisation(mode, self.low.value(), self.high.value())

    def _on_mode_changed(self, _index: int = 0) -> None:
        image = self._state.image_layer
        mode = self.mode.currentData()
        self.low.setEnabled(mode in ("percentile", "range"))
        self.high.setEnabled(mode in ("percentile", "range"))
        if image is None:
            return
        if mode == "percentile":
            self._set_limits(Normalisation().low, Normalisation().high)
        elif mode in ("range", "layer"):
            self._set_limits(*image.contrast_limits)
        self._apply()

    def _set_limits(self, low: float, high: float) -> None:
        for box, value in ((self.low, low), (self.high, high)):
            blocker = QSignalBlocker(box)
            box.setValue(float(value))
            blocker.unblock()

    def _apply(self, _value: Any = None) -> None:
        image = self._state.image_layer
        if image is None:
            return
        try:
            settings = ImageSettings(self._normalisation(image), self.data_bar.isChecked())
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        self._state.set_settings(image, settings)
        self._refresh_seen()

    def _on_contrast_limits(self, _event: Any = None) -> None:
        if self.mode.currentData() == "layer" and self._image is not None:
            self._set_limits(*self._image.contrast_limits)
            self._limits_timer.start()

    def _unfollow(self) -> None:
        if self._image is not None:
            self._image.events.contrast_limits.disconnect(self._on_contrast_limits)
            self._image = None

    def _on_image_changed(self, image: Image | None) -> None:
        self._unfollow()
        self.see.setChecked(False)
        self.show_data_bar(None)
        if image is None:
            return
        self._image = image
        image.events.contrast_limits.connect(self._on_contrast_limits)
        settings = self._state.settings(image)
        mode = settings.normalisation.mode
        for widget, set_value in (
            (self.mode, lambda: _choose(self.mode, mode)),
            (self.data_bar, lambda: self.data_bar.setChecked(settings.exclude_data_bar)),
        ):
            blocker = QSignalBlocker(widget)
            set_value()
            blocker.unblock()
        self._set_limits(settings.normalisation.low, settings.normalisation.high)
        self.low.setEnabled(mode != "auto")
        self.high.setEnabled(mode != "auto")

    # ------------------------------------------------------------------ preview

    def _refresh_seen(self, _value: Any = None) -> None:
        layers = self._dock.viewer.layers
        image = self._state.image_layer
        if not self.see.isChecked() or image is None:
            self._lane.invalidate()
            if self._seen is not None and self._seen in layers:
                layers.remove(self._seen)
            self._seen = None
            return
        try:
            plane = self._state.plane(image)
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        data, normalisation = full_resolution(image), self._state.settings(image).normalisation

        def on_done(rgb: np.ndarray) -> None:
            if image in layers and self.see.isChecked():
                self._show_seen(image, rgb)

        def on_failed(failure: Failure) -> None:
            self._dock.show_error(failure.message, details=failure.details)

        self._lane.submit(
            lambda progress, should_stop: to_rgb8(read_plane(data, plane), normalisation),
            on_done,
            on_failed,
        )

    def _show_seen(self, image: Image, rgb: np.ndarray) -> None:
        viewer = self._dock.viewer
        if self._seen is not None and self._seen in viewer.layers:
            self._seen.data = rgb
            return
        active = viewer.layers.selection.active
        self._seen = viewer.add_image(
            rgb, name=f"{image.name} as the model sees it", rgb=True, **like_plane(image)
        )
        viewer.layers.move(viewer.layers.index(self._seen), viewer.layers.index(image) + 1)
        viewer.layers.selection.active = active


def _limit_box() -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(-_LARGEST, _LARGEST)
    box.setDecimals(2)
    box.setKeyboardTracking(False)
    box.setMinimumWidth(80)
    return box


def _choose(combo: QComboBox, data: Any) -> None:
    combo.setCurrentIndex(max(0, combo.findData(data)))
