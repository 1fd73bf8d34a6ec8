"""Click on an object in the picture to select it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from phasesam.napari_widgets.layers import world_to_data

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from phasesam.napari_widgets.viewer_state import ViewerState

_CLICK_PIXELS = 4.0
_LEFT = 1


class ObjectPicker:
    """Turns clicks without dragging into object ids.

    A click counts while the image or its objects are the active layer and nothing is being
    drawn (pan/zoom mode, or the colour picker of the objects' layer). Clicks that add
    prompts, paint or draw belong to other layers or modes and are left alone.

    Parameters
    ----------
    state : ViewerState
        Which image, and its labels layer.
    on_picked : callable
        Called with the id under the mouse (0 for none) and whether Ctrl was held.
    """

    def __init__(self, state: ViewerState, on_picked: Callable[[int, bool], None]) -> None:
        self._state = state
        self._viewer = ref(state.viewer)
        self._on_picked = on_picked
        state.viewer.mouse_drag_callbacks.append(self._on_press)

    def stop(self) -> None:
        """Listen no more."""
        viewer = self._viewer()
        if viewer is not None and self._on_press in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_press)

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        if event.button != _LEFT or not self._listens(viewer):
            return
        start = np.asarray(event.pos, dtype=float)
        held = "Control" in event.modifiers
        position = event.position
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos, dtype=float) - start).max() <= _CLICK_PIXELS:
            self._on_picked(self._object_at(viewer, position), held)

    def _listens(self, viewer: ViewerModel) -> bool:
        image = self._state.image_layer
        if image is None or viewer.dims.ndisplay != 2:
            return False
        labels = self._state.existing_labels_layer(image)
        active = viewer.layers.selection.active
        if labels is None or not labels.visible:
            return False
        if active is image:
            return str(image.mode) == "pan_zoom"
        return active is labels and str(labels.mode) in ("pan_zoom", "pick")

    def _object_at(self, viewer: ViewerModel, position: Any) -> int:
        image = self._state.image_layer
        labels = None if image is None else self._state.existing_labels_layer(image)
        if labels is None:
            return 0
        index = np.rint(world_to_data(viewer, labels, position)).astype(int)
        if (index < 0).any() or (index >= labels.data.shape).any():
            return 0
        return int(labels.data[tuple(index)])
