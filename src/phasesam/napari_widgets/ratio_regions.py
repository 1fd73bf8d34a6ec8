"""Regions with ratios of their own: painted, or from any Labels layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, QTimer, Signal
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QWidget

from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.layers import OWN, is_own, like
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.session.ratio_sheet import WHOLE

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from phasesam.napari_widgets.subscriptions import Subscriptions

_REGIONS = "ratio_regions"
_PAUSE_MS = 150
_MOST = 200


class RatioRegions(QWidget):
    """Which layer holds regions, and which of them the sliders are about.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Its Labels layers are offered.
    subscriptions : Subscriptions
        Of the dock.
    """

    changed = Signal()
    """Other regions, or another shape of them."""
    chosen = Signal()
    """The user chose another region."""

    def __init__(
        self, viewer: ViewerModel, subscriptions: Subscriptions, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._subscriptions = ref(viewer), subscriptions
        self._image: ref[Image] | None = None
        self._layer: ref[Labels] | None = None
        self._plane: tuple[int, ...] = ()
        self._sources: list[ref[Labels]] = []
        self.source = narrow_combo("Labels layer whose values are regions with shares of their own")
        self.paint = QPushButton("Paint")
        self.paint.setToolTip("Paint a new region on the image; it gets shares of its own")
        self.region = narrow_combo("Region that the sliders are about")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setColumnStretch(1, 1)
        layout.addWidget(QLabel("Regions"), 0, 0)
        layout.addWidget(self.source, 0, 1)
        layout.addWidget(self.paint, 0, 2)
        self._title = QLabel("Shares of")
        layout.addWidget(self._title, 1, 0)
        layout.addWidget(self.region, 1, 1, 1, 2)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.timeout.connect(self._tell)
        self.source.activated.connect(self._on_source)
        self.region.activated.connect(lambda _index: self.chosen.emit())
        self.paint.clicked.connect(lambda *_: self.paint_region())
        for emitter in (viewer.layers.events.inserted, viewer.layers.events.removed):
            subscriptions.connect(emitter, self._on_layers)
        self._show()

    @property
    def layer(self) -> Labels | None:
        """The layer that holds the regions, if it is still there."""
        viewer, layer = self._viewer(), None if self._layer is None else self._layer()
        return layer if viewer is not None and layer in viewer.layers else None

    @property
    def current(self) -> int:
        """Number of the region that the sliders are about."""
        number = self.region.currentData()
        return WHOLE if number is None else int(number)

    def set_image(self, image: Image | None, plane: tuple[int, ...]) -> None:
        """Offer the layers that fit an image, and the regions of one of its planes."""
        self._image = None if image is None else ref(image)
        self._plane = plane
        layer = self.layer
        if image is None or (layer is not None and layer.data.shape != spatial_shape(image)):
            self._layer = None
        self._show()

    def numbers(self) -> NDArray[np.integer[Any]] | None:
        """Numbers of the regions of the plane, (h, w); None without any."""
        layer = self.layer
        if layer is None:
            return None
        numbers = np.array(layer.data[self._plane] if self._plane else layer.data)
        return numbers if numbers.any() else None

    def inside(self) -> NDArray[np.bool_] | None:
        """Pixels of the plane that the sliders are about, (h, w); None for all."""
        numbers = self.numbers()
        return None if numbers is None else numbers == self.current

    def present(self) -> set[int]:
        """Numbers of the regions of the plane."""
        numbers = self.numbers()
        return set() if numbers is None else {int(n) for n in np.unique(numbers)}

    def choose_source(self, layer: Labels | None) -> None:
        """Take the regions from a layer."""
        self._layer = None if layer is None else ref(layer)
        if layer is not None:
            for emitter in (layer.events.paint, layer.events.labels_update, layer.events.data):
                self._subscriptions.connect(emitter, self._on_painted)
        self._show()
        self.changed.emit()

    def paint_region(self) -> None:
        """Let the user paint the next region."""
        viewer, image = self._viewer(), None if self._image is None else self._image()
        if viewer is None or image is None:
            return
        layer = self.layer
        if layer is None:
            options = like(image)
            options["metadata"][OWN][_REGIONS] = True
            layer = viewer.add_labels(
                np.zeros(spatial_shape(image), np.uint8),
                name=f"{image.name} regions",
                opacity=0.4,
                **options,
            )
            self.choose_source(layer)
        present = self.present()
        layer.selected_label = min(max(present, default=0) + 1, _MOST)
        layer.brush_size = max(5, min(image.data.shape[-2:]) // 10 if image.ndim > 1 else 5)
        viewer.layers.selection.active = layer
        layer.mode = "paint"

    def _on_source(self, index: int) -> None:
        self.choose_source(self._sources[index - 1]() if index > 0 else None)

    def _on_painted(self, _event: Any = None) -> None:
        self._timer.start()

    def _on_layers(self, _event: Any = None) -> None:
        had = self._layer is not None
        if had and self.layer is None:
            self._layer = None
            self._show()
            self.changed.emit()
        else:
            self._show()

    def _tell(self) -> None:
        before = self.current
        self._show()
        newest = max(self.present(), default=WHOLE)
        # What has just been painted is what the sliders are to be about.
        layer = self.layer
        if layer is not None and before == WHOLE and newest == layer.selected_label:
            self.choose(newest)
        self.changed.emit()

    def choose(self, number: int) -> None:
        """Point the sliders at a region."""
        index = self.region.findData(number)
        if index >= 0:
            self.region.setCurrentIndex(index)

    def _show(self) -> None:
        """List layers and regions anew."""
        viewer, image = self._viewer(), None if self._image is None else self._image()
        layer = self.layer
        fitting = [] if viewer is None or image is None else [
            other for other in viewer.layers
            if isinstance(other, Labels)
            and other.data.shape == spatial_shape(image)
            and (not is_own(other) or _REGIONS in other.metadata.get(OWN, {}))
        ]  # fmt: skip
        self._sources = [ref(other) for other in fitting]
        blockers = [QSignalBlocker(self.source), QSignalBlocker(self.region)]
        self.source.clear()
        self.source.addItem("None")
        for other in fitting:
            self.source.addItem(other.name)
        self.source.setCurrentIndex(1 + fitting.index(layer) if layer in fitting else 0)
        before, numbers = self.current, sorted(self.present() - {WHOLE})
        present, n_more = numbers[:_MOST], max(0, len(numbers) - _MOST)
        self.region.clear()
        self.region.addItem("Outside of regions" if present else "Whole image", WHOLE)
        for number in present:
            self.region.addItem(f"Region {number}", number)
        if n_more:
            self._say_more(n_more)
        self.region.setCurrentIndex(max(0, self.region.findData(before)))
        for blocker in blockers:
            blocker.unblock()
        self.region.setVisible(bool(present))
        self._title.setVisible(bool(present))
        self.setEnabled(image is not None)

    def _say_more(self, count: int) -> None:
        """End the list with a line that nobody can choose."""
        self.region.addItem(f"… and {count} more, not listed")
        model, last = self.region.model(), self.region.count() - 1
        if isinstance(model, QStandardItemModel):
            model.item(last).setEnabled(False)
