"""A temporary layer on which the user draws the line to split an object along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers.base import ActionType
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from phasesam.napari_widgets.layers import like

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes

_COLOUR = "#D55E00"  # Okabe-Ito vermilion


class SplitLine:
    """Asks for one freehand line; the layer goes again when it has been drawn.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._before: Layer | None = None
        self._on_line: Callable[[NDArray[np.float64]], None] | None = None
        self.layer: Shapes | None = None

    @property
    def waiting(self) -> bool:
        """Whether the user is being asked for a line."""
        return self.layer is not None and self.layer in self._viewer.layers

    def ask(self, image: Image, on_line: Callable[[NDArray[np.float64]], None]) -> None:
        """Let the user draw; then call ``on_line`` with (k, 2) corners ``(y, x)`` in pixels."""
        self.cancel()
        self._before = self._viewer.layers.selection.active
        self._on_line = on_line
        self.layer = self._viewer.add_shapes(
            ndim=image.ndim,
            name=f"{image.name} split line",
            edge_color=_COLOUR,
            edge_width=2,
            **like(image),
        )
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_path"
        self.layer.events.data.connect(self._on_data)

    def cancel(self) -> None:
        """Ask no more."""
        layer, self.layer = self.layer, None
        if layer is None or layer not in self._viewer.layers:
            return
        layer.events.data.disconnect(self._on_data)
        self._viewer.layers.remove(layer)
        if self._before is not None and self._before in self._viewer.layers:
            self._viewer.layers.selection.active = self._before

    def _on_data(self, event: Any) -> None:
        # napari says so when the mouse is released; let it finish before the layer goes.
        if event.action == ActionType.ADDED:
            QTimer.singleShot(0, self._take)

    def _take(self) -> None:
        """Hand the line over once the mouse has been released."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            return
        corners = [np.asarray(line)[:, -2:] for line in layer.data if len(line) >= 2]
        if not corners:
            return
        on_line = self._on_line
        self.cancel()
        if on_line is not None:
            on_line(corners[-1])
