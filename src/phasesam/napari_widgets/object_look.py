"""Opacity and contour of the objects' layer, in step with napari's own controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import QObject, QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox
from superqt import QLabeledSlider

if TYPE_CHECKING:
    from napari.layers import Labels

    from phasesam.napari_widgets.dock import Dock

_CONTOUR_WIDTH = 2


class ObjectLook(QObject):
    """Slider and check box for the look of the committed objects of the present image.

    A change here goes to the layer, a change of the layer shows here, and nothing else
    changes either. A layer that is new gets the look that was chosen last.

    Parameters
    ----------
    dock : Dock
        Owner; lays the two widgets out.

    Attributes
    ----------
    opacity : QLabeledSlider
        In percent.
    contour : QCheckBox
        Outlines instead of filled objects.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self._dock = dock
        self._followed: WeakSet[Labels] = WeakSet()
        self.opacity = QLabeledSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(50)
        self.opacity.setToolTip("Opacity of the objects in %")
        self.contour = QCheckBox("Contour")
        self.contour.setToolTip("Outlines instead of filled objects")
        self.opacity.valueChanged.connect(self._on_opacity)
        self.contour.toggled.connect(self._on_contour)

    def _layer(self) -> Labels | None:
        state = self._dock.state
        return None if state.image_layer is None else state.existing_labels_layer(state.image_layer)

    def show_image(self) -> None:
        """Take over the look of the objects of another image."""
        labels = self._layer()
        if labels is not None:
            self._follow(labels)
            self._show()

    def note_objects(self) -> None:
        """Give the layer the look chosen here if objects have just made it."""
        labels = self._layer()
        if labels is not None and labels not in self._followed:
            self._on_opacity(self.opacity.value())
            self._on_contour(self.contour.isChecked())
            self._follow(labels)

    def _follow(self, labels: Labels) -> None:
        if labels not in self._followed:
            self._followed.add(labels)
            for emitter in (labels.events.opacity, labels.events.contour):
                self._dock.subscriptions.connect(emitter, self._show)

    def _on_opacity(self, percent: int) -> None:
        labels = self._layer()
        if labels is not None:
            labels.opacity = percent / 100

    def _on_contour(self, is_on: bool) -> None:
        labels = self._layer()
        if labels is not None:
            labels.contour = _CONTOUR_WIDTH if is_on else 0

    def _show(self, _event: Any = None) -> None:
        labels = self._layer()
        if labels is None:
            return
        blockers = QSignalBlocker(self.opacity), QSignalBlocker(self.contour)
        self.opacity.setValue(round(100 * labels.opacity))
        self.contour.setChecked(bool(labels.contour))
        for blocker in blockers:
            blocker.unblock()
