"""All mutable state of one image while it is being segmented."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core import curation
from phasesam.core.errors import SessionError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.measurements import ObjectTable
from phasesam.core.types import PixelSize
from phasesam.session import edits, storage
from phasesam.session.edits import Origin, Overlap
from phasesam.session.objects import ObjectMap, Plane
from phasesam.session.saving import SavedObjects
from phasesam.session.table import Measuring, TableCache


class SegmentationSession(SavedObjects):
    """Candidates, committed objects, undo and autosave of one image or stack.

    A session belongs to one thread (the GUI's in napari). Every edit is one undo step;
    an edit that fails changes nothing.

    Parameters
    ----------
    shape : tuple of int
        ``(h, w)``, or ``(..., h, w)`` for a stack. Edits then take ``plane``, the index on
        the leading axes. Ids are unique in the whole array.
    pixel_size : PixelSize
        For measurements.
    name : str
        Name of the image, shown when the session is recovered.
    autosave_path : path, optional
        Where `autosave` writes; no autosave when left out.
    image_key : str
        Content hash of the image, kept in the file so that a recovered session finds it.

    Attributes
    ----------
    events : SessionEvents
        ``labels_changed(plane, box)``, ``objects_changed()``, ``history_changed()``,
        ``candidates_changed()``.
    field_of_view : (int, int, int, int) or None
        Half-open box ``(y0, x0, y1, x1)`` of the micrograph within a plane, without its
        data bar; objects that reach its sides count as cut. None for the whole plane.

    Raises
    ------
    InvalidMaskError
        If the shape has fewer than two axes or an empty one.
    SessionError
        If there is no room for labels of this shape.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        pixel_size: PixelSize | None = None,
        name: str = "",
        autosave_path: Path | None = None,
        image_key: str = "",
    ) -> None:
        super().__init__(ObjectMap(tuple(shape)))
        self.pixel_size = pixel_size if pixel_size is not None else PixelSize()
        self.name = name
        self.image_key = image_key
        self.autosave_path = None if autosave_path is None else Path(autosave_path)
        self._table = TableCache()
        self._candidates: Any = None

    @classmethod
    def around(cls, objects: ObjectMap, on_write: Callable[[], None]) -> SegmentationSession:
        """Make a session of given objects; ``on_write`` is called in every edit."""
        session = cls(objects.labels.shape)
        session._objects, session._on_write = objects, on_write
        return session

    @property
    def candidates(self) -> Any:
        """What `set_candidates` was given last, None at first."""
        return self._candidates

    def set_candidates(self, candidates: Any) -> None:
        """Hold automatic candidates; they are not part of undo and are not saved."""
        self._candidates = candidates
        self.events.candidates_changed.emit()

    def table(self, plane: Plane | None = None) -> ObjectTable:
        """Measure the objects of one plane, or of all planes.

        Only objects that changed since the last call are measured again. A stack has
        an extra column ``plane_0``, ``plane_1``, ... for every leading axis.
        """
        measuring = self.measuring(plane)
        if measuring.records:
            self.take_measured(measuring, measuring.work_out())
        return self.known_table(plane)

    def measuring(self, plane: Plane | None = None) -> Measuring:
        """List what `table` would measure, to do it in a worker instead.

        Pass what `Measuring.work_out` returns to `take_measured`, then call `known_table`.
        """
        wanted = None if plane is None else self._objects.checked_plane(plane)
        return self._table.ask(self._objects, self.pixel_size, self.field_of_view, wanted)

    def take_measured(self, measuring: Measuring, table: ObjectTable) -> None:
        """Keep measurements, but not those of objects that were edited in the meantime."""
        self._table.take(measuring, table)

    def known_table(self, plane: Plane | None = None) -> ObjectTable:
        """Return the last measurements of the objects there are, without measuring.

        New objects are missing; those that changed have their former sizes.
        """
        wanted = None if plane is None else self._objects.checked_plane(plane)
        return self._table.known(self._objects, self.pixel_size, self.field_of_view, wanted)

    # Edits

    def commit(
        self,
        mask: NDArray[np.bool_] | MaskCrop,
        *,
        plane: Plane = (),
        score: float = float("nan"),
        class_name: str = "",
        source: str = "prompt",
        overlap: Overlap = "new_on_top",
    ) -> int:
        """Add one object.

        Parameters
        ----------
        mask : (h, w) bool array or MaskCrop
            Its pixels.
        plane : tuple of int
            Index on the leading axes.
        score : float
            Predicted IoU, 0–1.
        class_name, source : str
            Kept in its record.
        overlap : {"new_on_top", "keep_existing"}
            Whether it takes pixels from other objects (one that is covered completely
            vanishes; undo brings it back) or only gets free pixels.

        Returns
        -------
        int
            The new id.

        Raises
        ------
        InvalidMaskError
            If the mask is empty or has another shape.
        SessionError
            If the plane does not exist, or no pixel is free.
        """
        origin = Origin(self._objects.checked_plane(plane), source, class_name, overlap)
        crop = self._objects.checked_mask(mask)
        with self._step("Add object") as edit:
            return edits.add(edit, crop, origin, score)

    def commit_many(
        self,
        mask_set: MaskSet,
        *,
        plane: Plane = (),
        replace: bool = False,
        source: str = "automatic",
        class_name: str = "",
        overlap: Overlap = "keep_existing",
        min_area: float = 0,
    ) -> list[int]:
        """Add many objects in one step, smaller ones on larger ones.

        Parameters
        ----------
        mask_set : MaskSet
            Masks of one plane.
        plane : tuple of int
            Index on the leading axes.
        replace : bool
            First delete the objects of this plane that have the same source.
        source, class_name : str
            Kept in the records.
        overlap : {"new_on_top", "keep_existing"}
            As in `commit`. With ``"keep_existing"`` a mask of which other objects hold
            more than half is left out altogether, because only its rim would remain.
        min_area : float
            Masks of which fewer pixels than this remain visible are left out; see
            `MaskSet.to_labels`.

        Returns
        -------
        list of int
            Ids of the objects made, in the order of the masks; masks of which nothing is
            visible are left out.

        Raises
        ------
        InvalidMaskError
            If the masks have another shape.
        """
        origin = Origin(self._objects.checked_plane(plane), source, class_name, overlap)
        with self._step(f"Add {len(mask_set)} objects") as edit:
            return edits.add_many(edit, mask_set, origin, replace, min_area)

    def apply_labels(self, labels_plane: ArrayLike, *, plane: Plane = ()) -> dict[int, int]:
        """Take over what the user painted, as one step.

        A label that was never used makes a new object. A label that belongs to an object
        of another plane or to one that was deleted makes a new object under a new id.

        Parameters
        ----------
        labels_plane : (h, w) integer array
            The whole plane as it is now.
        plane : tuple of int
            Index on the leading axes.

        Returns
        -------
        dict of int to int
            Painted label to new id, for those that had to be renamed.

        Raises
        ------
        InvalidMaskError
            If shape, dtype or values are not those of labels.
        """
        index = self._objects.checked_plane(plane)
        return self.apply_planes([(index, labels_plane)]).get(index, {})

    def apply_planes(
        self, planes: Iterable[tuple[Plane, ArrayLike]], *, name: str = "Paint"
    ) -> dict[Plane, dict[int, int]]:
        """Like `apply_labels` for several planes, all in one step.

        Parameters
        ----------
        planes : iterable of (tuple of int, (h, w) integer array)
            Index on the leading axes and the whole plane as it is now; read one by one.
        name : str
            Name of the step.

        Returns
        -------
        dict
            For every plane with renamed labels what `apply_labels` returns.
        """
        renamed: dict[Plane, dict[int, int]] = {}
        with self._step(name) as edit:
            for plane, labels in planes:
                index = self._objects.checked_plane(plane)
                renamed[index] = edits.paint(edit, labels, index)
        return {plane: names for plane, names in renamed.items() if names}

    def delete(self, ids: int | Iterable[int]) -> None:
        """Delete objects."""
        wanted = self._objects.checked_ids(ids)
        with self._step(_counted("Delete", wanted)) as edit:
            edits.delete(edit, wanted)

    def merge(self, ids: Iterable[int]) -> int:
        """Unite objects of one plane; the result keeps the first id, which is returned."""
        wanted = self._objects.checked_ids(ids)
        with self._step(_counted("Merge", wanted)) as edit:
            return edits.merge(edit, wanted)

    def split_by_line(self, object_id: int, line_yx: ArrayLike) -> list[int]:
        """Cut an object along a polyline of ``(y, x)`` corners in pixels.

        Returns the ids of the parts, largest first; the largest keeps the id. Raises
        `SessionError` if the line does not cut the object.
        """
        parts = curation.split_by_line(self.object_mask(object_id), line_yx)
        if len(parts) < 2:
            raise SessionError(
                f"the line does not cut object {object_id} in two: draw it from outside to outside"
            )
        with self._step(f"Split object {object_id}") as edit:
            return edits.split(edit, int(object_id), parts)

    def split_by_watershed(self, object_id: int, parts: int | None = None) -> list[int]:
        """Split an object at its necks, into a given number of parts or by itself.

        Returns the ids of the parts, largest first; the largest keeps the id. Raises
        `SessionError` if there is no neck to split at.
        """
        pieces = curation.split_by_watershed(self.object_mask(object_id), parts)
        if len(pieces) < 2:
            raise SessionError(
                f"object {object_id} has no neck to split at: give a number of parts"
            )
        with self._step(f"Split object {object_id}") as edit:
            return edits.split(edit, int(object_id), pieces)

    def fill_holes(self, ids: int | Iterable[int], max_area: int | None = None) -> None:
        """Fill holes (up to ``max_area`` pixels); pixels of other objects stay theirs."""
        wanted = self._objects.checked_ids(ids)
        with self._step(_counted("Fill holes of", wanted)) as edit:
            edits.reshape(edit, wanted, lambda mask: curation.fill_holes(mask, max_area))

    def smooth(self, ids: int | Iterable[int], radius: float = 2.0) -> None:
        """Round outlines by ``radius`` pixels; pixels of other objects stay theirs."""
        wanted = self._objects.checked_ids(ids)
        shape = self._objects.plane_shape
        with self._step(_counted("Smooth", wanted)) as edit:
            edits.reshape(edit, wanted, lambda mask: curation.smooth(mask, radius, shape))

    def set_class(self, ids: int | Iterable[int], name: str) -> None:
        """Give objects a class; an empty name takes it away."""
        wanted = self._objects.checked_ids(ids)
        with self._step(f"Set class {name!r}" if name else "Clear class") as edit:
            edits.set_class(edit, wanted, name)

    def _forget(self, ids: Iterable[int]) -> None:
        self._table.forget(ids)

    # Files

    @classmethod
    def load(cls, path: Path | str) -> SegmentationSession:
        """Read a saved session.

        Raises
        ------
        SessionError
            If the file is not a complete session; it is left as it is.
        """
        objects, facts = storage.read(Path(path))
        session = cls(
            objects.labels.shape,
            pixel_size=facts.pixel_size,
            name=facts.name,
            image_key=facts.image_key,
        )
        session.field_of_view = facts.field_of_view
        session._objects = objects
        return session

    @classmethod
    def recover(cls, path: Path | str) -> SegmentationSession:
        """Continue an interrupted session from its autosave, which it goes on writing."""
        session = cls.load(path)
        session.autosave_path = Path(path)
        return session


def _counted(verb: str, ids: list[int]) -> str:
    return f"{verb} object {ids[0]}" if len(ids) == 1 else f"{verb} {len(ids)} objects"
