"""Keeps one Labels layer and one session the same, both ways."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidMaskError
from phasesam.napari_widgets.layers import OWN, like, world_to_data

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from phasesam.session import SegmentationSession

SESSION = "session"
_OPACITY = 0.5
_FEW_PIXELS = 50_000

# Writers get a layer's data and metadata only; through this they find scores and classes.
_sessions: WeakValueDictionary[str, SegmentationSession] = WeakValueDictionary()


def session_behind(metadata: Mapping[str, Any]) -> SegmentationSession | None:
    """Find the session that a Labels layer with this metadata shows, None for other layers."""
    own = metadata.get(OWN)
    return _sessions.get(own.get(SESSION, "")) if isinstance(own, Mapping) else None


class CommittedLabels:
    """The Labels layer that shows the committed objects of one image.

    The session is the truth and the layer a view of it. Brush, eraser, bucket and polygon
    of napari change the layer first; each stroke is then taken over by the session as one
    undo step. The layer's own undo and redo (Ctrl+Z on it) are the session's, so that there is
    one history, whatever has the keyboard focus.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the new layer.
    image : napari.layers.Image
        Whose objects they are.
    session : SegmentationSession
        Where the objects are.
    """

    def __init__(self, viewer: ViewerModel, image: Image, session: SegmentationSession) -> None:
        self._session = session
        self._viewer = ref(viewer)
        self._pending: set[tuple[int, ...]] = set()
        active = viewer.layers.selection.active
        options = like(image)
        token = f"{id(session):x}"
        _sessions[token] = session
        options["metadata"][OWN][SESSION] = token
        self.layer = viewer.add_labels(
            _copy_of(session), name=f"{image.name} objects", opacity=_OPACITY, **options
        )
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        # Plain attributes of the instance: napari's key bindings call them.
        setattr(self.layer, "undo", session.undo)  # noqa: B010
        setattr(self.layer, "redo", session.redo)  # noqa: B010
        session.events.labels_changed.connect(self._on_labels_changed)
        self.layer.events.paint.connect(self._on_paint)
        self.layer.events.labels_update.connect(self._take_over)
        self.layer.events.data.connect(self._on_data)

    def detach(self) -> None:
        """Stop following; the layer keeps what it shows and gets its own undo back."""
        self._session.events.labels_changed.disconnect(self._on_labels_changed)
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.labels_update.disconnect(self._take_over)
        self.layer.events.data.disconnect(self._on_data)
        for name in ("undo", "redo"):
            self.layer.__dict__.pop(name, None)

    def adopt(self, labels: Any, name: str) -> None:
        """Take over the objects of another label array of the same shape, called ``name``."""
        shape = self._session.labels.shape
        if tuple(labels.shape) != shape:
            raise InvalidMaskError(f"expected labels of shape {shape}, got {tuple(labels.shape)}")
        planes = ((plane, np.asarray(labels[plane])) for plane in np.ndindex(shape[:-2]))
        self._session.apply_planes(planes, name=f"Take over {name}")

    # ------------------------------------------------------------------ session to layer

    def _on_labels_changed(
        self, plane: tuple[int, ...], box: tuple[int, int, int, int] | None
    ) -> None:
        y0, x0, y1, x1 = box if box is not None else (0, 0, *self._session.labels.shape[-2:])
        where: Any = (*plane, slice(y0, y1), slice(x0, x1))
        wanted, shown = self._session.labels[where], self.layer.data[where]
        changed = shown != wanted
        count = int(np.count_nonzero(changed))
        if count > _FEW_PIXELS:
            shown[...] = wanted
            self.layer.refresh(extent=False)
        elif count:
            # napari draws the box around these pixels again, not all of a large image.
            rows, columns = np.nonzero(changed)
            leading = tuple(np.full(count, i) for i in plane)
            with self.layer.events.paint.blocker(self._on_paint):
                self.layer.data_setitem((*leading, rows + y0, columns + x0), wanted[changed])

    # ------------------------------------------------------------------ layer to session

    def _on_paint(self, event: Any) -> None:
        self._pending.update(painted_planes(event.value, self.layer.ndim - 2))
        # A stroke is reported after it was painted, a single fill or call before: then the
        # update of the picture follows.
        if _is_painted(self.layer.data, event.value[-1]):
            self._take_over()

    def _take_over(self, _event: Any = None) -> None:
        if not self._pending:
            return
        planes, self._pending = sorted(self._pending), set()
        renamed = self._session.apply_planes((plane, self.layer.data[plane]) for plane in planes)
        if len(planes) > 1:
            # A stroke over planes: an object belongs to one plane, so go on with the one in view.
            renamed = {p: names for p, names in renamed.items() if p == self._shown_plane()}
        for names in renamed.values():
            if self.layer.selected_label in names:
                self.layer.selected_label = names[self.layer.selected_label]

    def _shown_plane(self) -> tuple[int, ...]:
        """Index of the plane in view, as far as the layer knows."""
        viewer = self._viewer()
        if viewer is None:
            return ()
        here = world_to_data(viewer, self.layer, viewer.dims.point)[:-2]
        return tuple(int(i) for i in np.rint(here))

    def _on_data(self, event: Any = None) -> None:
        """Take over data set by another tool, if they still fit the image."""
        if self.layer.data.shape != self._session.labels.shape:
            return
        data = self.layer.data
        self._session.apply_planes(
            (plane, np.asarray(data[plane]))
            for plane in np.ndindex(data.shape[:-2])
            if not np.array_equal(data[plane], self._session.labels[plane])
        )


def _copy_of(session: SegmentationSession) -> NDArray[np.int32]:
    """Copy the labels; planes without objects are left as untouched memory."""
    labels = np.zeros(session.labels.shape, dtype=np.int32)
    for plane in {record.plane for record in session.objects}:
        labels[plane] = session.labels[plane]
    return labels


def _is_painted(data: NDArray[np.int32], atom: Any) -> bool:
    """Whether the data show an item of napari's undo history already."""
    key = getattr(atom, "slice_key", None)
    if key is None:
        indices, _, value = atom
        return bool((data[indices] == value).all())
    region = data[key]
    return bool((region if atom.mask is None else region[atom.mask]).ravel()[0] == atom.new_value)


def painted_planes(atoms: Any, leading: int) -> set[tuple[int, ...]]:
    """Find which planes a stroke of napari touched, from the items of its undo history."""
    if leading == 0:
        return {()}
    planes: set[tuple[int, ...]] = set()
    for atom in atoms:
        key = getattr(atom, "slice_key", None)
        if key is None:
            # ``data_setitem``: one index array per axis.
            leading_axes = np.stack([np.ravel(axis) for axis in atom[0][:leading]], axis=1)
            planes.update(map(tuple, np.unique(leading_axes, axis=0).tolist()))
        else:
            ranges = [range(part.start, part.stop) for part in key[:leading]]
            planes.update(itertools.product(*ranges))
    return planes
