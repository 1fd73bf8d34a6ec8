"""From the planes that a run of the *Phases* dock finds to layers, whatever happens meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phasesam.napari_widgets.committed_labels import painted_planes
from phasesam.napari_widgets.phase_models import class_colours
from phasesam.napari_widgets.planes import spatial_shape

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from phasesam.models.adapter_card import AdapterCard
    from phasesam.napari_widgets.phase_run import PlaneMap
    from phasesam.napari_widgets.phases import PhasesDock


class MapsInTheMaking:
    """Shows the planes of one run as they come; the layer is made with the first.

    Parameters
    ----------
    dock : PhasesDock
        Has the viewer, and counts what is shown.
    image : napari.layers.Image
        What is mapped.
    card : AdapterCard
        Of the adapter that maps it.
    """

    def __init__(self, dock: PhasesDock, image: Image, card: AdapterCard) -> None:
        self._dock = dock
        self._image = image
        self._card = card
        self._layer: Labels | None = None
        self._corrected: set[tuple[int, ...]] = set()
        self._is_fresh = self._is_beside = self._has_confidence = self._is_replaced = False

    @property
    def remark(self) -> str:
        """What the user should know about the layers."""
        if self._is_replaced:
            return " The image has other data now: what does not fit it is not shown."
        text = " The map that you corrected was left as it is." if self._is_beside else ""
        return text + (" The confidence is in a hidden layer." if self._has_confidence else "")

    def show(self, found: PlaneMap) -> None:
        """Write one plane."""
        dock, image = self._dock, self._image
        if image not in dock.viewer.layers:
            return
        if not self._fits(found):
            self._is_replaced = True
            return
        if self._layer is None or self._layer not in dock.viewer.layers:
            self._layer = self._prepare()
        if found.plane in self._corrected:
            self._is_beside = True
            return
        values = found.values
        if self._is_fresh:
            # What is there was painted since this run began, before its plane came.
            painted = self._layer.data[found.plane]
            values = np.where(painted > 0, painted, values)
        dock.layers.write(self._layer, found.plane, values)
        if found.confidence is not None:
            dock.layers.write_sureness(image, self._layer, found.plane, found.confidence)
            self._has_confidence = True
        else:
            dock.layers.clear_sureness(self._layer, found.plane)
        dock.ask_to_count()

    def _prepare(self) -> Labels:
        dock, colours = self._dock, class_colours(self._card)
        before = dock.layers.of(self._image)
        layer, self._is_beside = dock.layers.prepare(self._image, self._card.classes, colours)
        self._is_fresh = layer is not before
        layer.events.paint.connect(self._on_painted)
        dock.follow(layer)
        return layer

    def end(self) -> None:
        """Follow what is painted no longer."""
        if self._layer is not None:
            self._layer.events.paint.disconnect(self._on_painted)

    def _fits(self, found: PlaneMap) -> bool:
        """Whether image and map still have this plane."""
        shape = spatial_shape(self._image)
        if self._layer is not None and self._layer.data.shape != shape:
            return False
        inside = all(i < n for i, n in zip(found.plane, shape[:-2], strict=False))
        return len(found.plane) == len(shape) - 2 and inside and found.values.shape == shape[-2:]

    def _on_painted(self, event: Any) -> None:
        """Leave planes alone whose earlier map is corrected while the new one is made."""
        if not self._is_fresh and self._layer is not None:
            self._corrected |= painted_planes(event.value, self._layer.ndim - 2)
