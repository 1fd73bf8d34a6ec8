"""Outline of the selected objects, in a layer of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
_MOST_PIXELS = 2_500_000
_LARGEST_TABLE = 1 << 22
_THICKNESS = 2
_PLACE = ("scale", "translate")
_PAIRS = ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1]))


class ObjectHighlight:
    """Shows which objects are selected, as yellow outlines on the first one's plane.

    The layer holds no more than the box around the selected objects, and a large box in
    steps of some pixels. It stays, hidden, when nothing is selected: napari takes seconds
    to remove a layer from a large session.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layer as soon as something is selected.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._image: Callable[[], Image | None] = lambda: None
        self.layer: Labels | None = None

    def show(self, image: Image, session: SegmentationSession, ids: Sequence[int]) -> None:
        """Outline objects; an empty list hides the outlines."""
        known = {record.id: record for record in session.objects} if len(ids) else {}
        records = [known[i] for i in ids if i in known]
        viewer = self._viewer()
        if not records or viewer is None:
            self.hide()
            return
        plane = records[0].plane
        records = [record for record in records if record.plane == plane]
        boxes = np.array([record.box for record in records])
        height, width = session.shape[-2:]
        top, left = (max(0, int(v) - _RIM) for v in boxes[:, :2].min(axis=0))
        bottom = min(height, int(boxes[:, 2].max()) + _RIM)
        right = min(width, int(boxes[:, 3].max()) + _RIM)
        step = math.ceil(math.sqrt((bottom - top) * (right - left) / _MOST_PIXELS))
        piece = session.labels[plane][top:bottom:step, left:right:step]
        data = _rims(_numbered(piece, [record.id for record in records]))
        middle = (step - 1) / 2
        geometry = plane_geometry(image, plane, (top + middle, left + middle))
        steps = np.ones(image.ndim)
        steps[-2:] = step
        geometry["scale"] = np.asarray(geometry["scale"]) * steps
        data = data[(np.newaxis,) * len(plane)]
        if self.layer is None or self.layer not in viewer.layers or self._image() is not image:
            self.clear()
            self._add(viewer, image, data, geometry)
            self._image = ref(image)
        else:
            self._change(self.layer, data, geometry)

    def hide(self) -> None:
        """Show no outlines, but keep the layer for the next ones."""
        if self.layer is not None and self.layer.visible:
            self.layer.visible = False

    def leave(self) -> None:
        """Hide the outlines because of another image; those of a removed image go."""
        viewer, image = self._viewer(), self._image()
        if viewer is not None and image is not None and image in viewer.layers:
            self.hide()
        else:
            self.clear()

    def clear(self) -> None:
        """Take the layer away."""
        viewer = self._viewer()
        if viewer is not None and self.layer is not None and self.layer in viewer.layers:
            viewer.layers.remove(self.layer)
        self.layer = None

    def _change(self, layer: Labels, data: NDArray, geometry: dict) -> None:
        same = layer.data.shape == data.shape and np.array_equal(layer.data, data)
        if same and all(np.array_equal(getattr(layer, n), geometry[n]) for n in _PLACE):
            layer.visible = True
            return
        # What changes while a layer is hidden is drawn once, when it comes back.
        layer.visible = False
        layer.data = data
        for name in _PLACE:
            setattr(layer, name, geometry[name])
        layer.visible = True

    def _add(self, viewer: ViewerModel, image: Image, data: NDArray, geometry: dict) -> None:
        active = viewer.layers.selection.active
        self.layer = viewer.add_labels(
            data,
            name=f"{image.name} selected",
            opacity=1.0,
            colormap=DirectLabelColormap(color_dict={0: "transparent", None: _COLOUR}),
            **geometry,
        )
        self.layer.editable = False
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active


def _numbered(piece: NDArray[np.int32], ids: Sequence[int]) -> NDArray[np.uint8]:
    """Count the wanted labels of a piece from 1 (again after 250) and make the rest 0."""
    wanted = np.sort(np.asarray(ids, dtype=np.int64))
    highest = int(piece.max(initial=0))
    if highest < _LARGEST_TABLE:
        table = np.zeros(highest + 1, dtype=np.uint8)
        shown = wanted <= highest
        table[wanted[shown]] = (np.arange(len(wanted)) % 250 + 1)[shown]
        return table[piece]
    places = np.searchsorted(wanted, piece).clip(max=len(wanted) - 1)
    return np.where(wanted[places] == piece, places % 250 + 1, 0).astype(np.uint8)


def _rims(numbered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave the pixels of each label that are at most two steps from another label.

    napari could draw outlines, but takes ten times as long for a large selection.
    """
    inside = np.ones(numbered.shape, dtype=np.bool_)
    for a, b in _PAIRS:
        same = numbered[a] == numbered[b]
        inside[a] &= same
        inside[b] &= same
    for _ in range(_THICKNESS - 1):
        inner = inside.copy()
        for a, b in _PAIRS:
            inner[a] &= inside[b]
            inner[b] &= inside[a]
        inside = inner
    return np.where(inside, np.uint8(0), numbered)
