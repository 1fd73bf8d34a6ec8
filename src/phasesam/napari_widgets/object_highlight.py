"""Outline of the selected objects, in a layer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from phasesam.napari_widgets.plane_layer import plane_geometry

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from phasesam.session import SegmentationSession

_COLOUR = "#F0E442"  # Okabe-Ito yellow
_RIM = 3


class ObjectHighlight:
    """Shows which objects are selected, as yellow outlines on the first one's plane.

    The layer holds no more than the box around the selected objects.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layer while something is selected.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self.layer: Labels | None = None

    def show(self, image: Image, session: SegmentationSession, ids: Sequence[int]) -> None:
        """Outline objects; an empty list takes the layer away."""
        known = {record.id: record for record in session.objects} if len(ids) else {}
        records = [known[i] for i in ids if i in known]
        viewer = self._viewer()
        if not records or viewer is None:
            self.clear()
            return
        plane = records[0].plane
        records = [record for record in records if record.plane == plane]
        boxes = np.array([record.box for record in records])
        height, width = session.shape[-2:]
        top, left = (max(0, int(v) - _RIM) for v in boxes[:, :2].min(axis=0))
        bottom = min(height, int(boxes[:, 2].max()) + _RIM)
        right = min(width, int(boxes[:, 3].max()) + _RIM)
        piece = session.labels[plane][top:bottom, left:right]
        data = _numbered(piece, [record.id for record in records])
        geometry = plane_geometry(image, plane, (top, left))
        data = data[(np.newaxis,) * len(plane)]
        if self.layer is None or self.layer not in viewer.layers:
            self._add(viewer, image, data, geometry)
        else:
            self.layer.data = data
            self.layer.translate = geometry["translate"]

    def clear(self) -> None:
        """Take the layer away."""
        viewer = self._viewer()
        if viewer is not None and self.layer is not None and self.layer in viewer.layers:
            viewer.layers.remove(self.layer)
        self.layer = None

    def _add(self, viewer: ViewerModel, image: Image, data: NDArray, geometry: dict) -> None:
        active = viewer.layers.selection.active
        self.layer = viewer.add_labels(
            data,
            name=f"{image.name} selected",
            opacity=1.0,
            colormap=DirectLabelColormap(color_dict={0: "transparent", None: _COLOUR}),
            **geometry,
        )
        self.layer.contour = 2
        self.layer.editable = False
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active


def _numbered(piece: NDArray[np.int32], ids: Sequence[int]) -> NDArray[np.uint8]:
    """Count the wanted labels of a piece from 1 (again after 250) and make the rest 0."""
    wanted = np.sort(np.asarray(ids, dtype=np.int64))
    places = np.searchsorted(wanted, piece).clip(max=len(wanted) - 1)
    return np.where(wanted[places] == piece, places % 250 + 1, 0).astype(np.uint8)
