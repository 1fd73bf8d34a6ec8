"""Notices what changes images and labels: other data, another place, other pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.subscriptions import Subscriptions

if TYPE_CHECKING:
    from phasesam.napari_widgets.viewer_state import ViewerState


class LayerChanges(QObject):
    """Follows layers of a viewer.

    Parameters
    ----------
    state : ViewerState
        Whose layers.
    parent : QObject
        Lives as long.
    """

    reshaped = Signal(object)
    """A layer got data of another shape."""
    moved = Signal(object)
    """A layer lies elsewhere."""
    written = Signal(object)
    """The values of a Labels layer may be others: painted by the user, or by another dock."""

    def __init__(self, state: ViewerState, parent: QObject) -> None:
        super().__init__(parent)
        self._state = state
        self._shapes: WeakKeyDictionary[Layer, tuple[int, ...]] = WeakKeyDictionary()
        self._views: WeakKeyDictionary[Layer, Any] = WeakKeyDictionary()
        self._subscriptions = Subscriptions(self)

    def follow(self, layer: Image | Labels) -> None:
        """Tell of changes of a layer from now on."""
        if layer in self._shapes:
            return
        self._shapes[layer] = spatial_shape(layer)
        events = layer.events
        self._subscriptions.connect(events.data, self._on_data)
        for emitter in (events.scale, events.translate, events.rotate, events.shear, events.affine):
            self._subscriptions.connect(emitter, self._on_moved)
        if isinstance(layer, Labels):
            self._views[layer] = self._view()
            # While a layer is hidden, it is not drawn when it is written to.
            for emitter in (events.paint, events.labels_update, events.data, events.visible):
                self._subscriptions.connect(emitter, self._on_written)
            self._subscriptions.connect(events.set_data, self._on_drawn)

    def _on_data(self, event: Any) -> None:
        layer = event.source
        shape = spatial_shape(layer)
        if self._shapes.get(layer) != shape:
            self._shapes[layer] = shape
            self.reshaped.emit(layer)

    def _on_moved(self, event: Any) -> None:
        self.moved.emit(event.source)

    def _on_written(self, event: Any) -> None:
        self.written.emit(event.source)

    def _on_drawn(self, event: Any) -> None:
        """Notice what other docks write: they draw the layer anew, as another plane does."""
        labels, view = event.source, self._view()
        if self._views.get(labels) == view and isinstance(labels.data, np.ndarray):
            self.written.emit(labels)
        self._views[labels] = view

    def _view(self) -> Any:
        """Say what the viewer shows."""
        if not self._state.has_viewer:
            return None
        dims = self._state.viewer.dims
        return dims.point, dims.order, dims.ndisplay
