"""One edit in the making: it becomes a step of the history, or leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.errors import SessionError
from phasesam.core.mask_set import MaskCrop
from phasesam.session.history import LabelChange, Step
from phasesam.session.objects import MAX_ID, Box, ObjectMap, ObjectRecord, Plane


class Transaction:
    """Writes labels at once and works out the records at the end.

    Parameters
    ----------
    objects : ObjectMap
        What to edit.
    on_write : callable, optional
        Called before every write; an exception from it ends the edit.
    """

    def __init__(self, objects: ObjectMap, on_write: Callable[[], None] | None = None) -> None:
        self.objects = objects
        self._on_write = on_write
        self._changes: list[LabelChange] = []
        self._drafts: dict[int, ObjectRecord] = {}
        self._reach: dict[int, Box] = {}

    @property
    def reached(self) -> frozenset[int]:
        """Ids of the objects whose pixels were written, or that lost some."""
        return frozenset(self._reach)

    def new_id(self) -> int:
        """Return an id that was never used."""
        object_id = self.objects.next_id
        if object_id >= MAX_ID:
            raise SessionError(f"no object id below {MAX_ID} is free")
        self.objects.next_id += 1
        return object_id

    def draft(self, record: ObjectRecord) -> None:
        """Announce a new object or new values of an existing one; box and area follow later."""
        self._drafts[record.id] = record

    def write(self, plane: Plane, corner: tuple[int, int], after: NDArray[np.integer]) -> None:
        """Replace the (h, w) piece of a plane that begins at ``corner``."""
        if self._on_write is not None:
            self._on_write()
        y, x = corner
        piece = self.objects.labels[plane][y : y + after.shape[0], x : x + after.shape[1]]
        change = LabelChange.between(plane, corner, piece, after)
        if change is None:
            return
        for object_id in np.unique(change.before.values).tolist():
            self._reach_over(object_id, plane)
        for object_id, box in _boxes_of(change).items():
            self._reach_over(object_id, plane, box)
        piece[...] = after
        self._changes.append(change)

    def set_pixels(self, plane: Plane, mask: MaskCrop, label: int) -> None:
        """Give all pixels of a mask one label."""
        after = self.objects.labels[plane][mask.slices].copy()
        after[mask.array()] = label
        self.write(plane, (mask.y0, mask.x0), after)

    def _reach_over(self, object_id: int, plane: Plane, box: Box | None = None) -> None:
        """Remember where the pixels of an object may be after the edit."""
        if object_id == 0:
            return
        record = self.objects.records.get(object_id)
        if record is not None and record.plane != plane:
            raise SessionError(f"object {object_id} lies in plane {record.plane}, not in {plane}")
        boxes = [b for b in (self._reach.get(object_id), box, record and record.box) if b]
        if boxes:
            low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
            self._reach[object_id] = (int(low[0]), int(low[1]), int(high[2]), int(high[3]))

    def finish(self, name: str) -> Step | None:
        """Bring the records in line with the labels; None when nothing changed."""
        records: dict[int, tuple[ObjectRecord | None, ObjectRecord | None]] = {}
        for object_id in sorted({*self._reach, *self._drafts}):
            before = self.objects.records.get(object_id)
            after = self._measured(object_id)
            if before != after:
                records[object_id] = (before, after)
        if not self._changes and not records:
            return None
        for object_id, (_, after) in records.items():
            if after is None:
                self.objects.records.pop(object_id, None)
            else:
                self.objects.records[object_id] = after
        touched = frozenset({*self._reach, *records})
        return Step(name, tuple(self._changes), records, touched)

    def _measured(self, object_id: int) -> ObjectRecord | None:
        record = self._drafts.get(object_id, self.objects.records.get(object_id))
        if record is None:
            raise SessionError(f"label {object_id} has no object")
        if object_id not in self._reach:
            return record if object_id in self.objects.records else None
        y0, x0, y1, x1 = self._reach[object_id]
        piece = self.objects.labels[record.plane][y0:y1, x0:x1]
        crop = MaskCrop.from_array(piece == object_id, y0, x0)
        return replace(record, box=crop.box, area=crop.area) if crop.area else None

    def roll_back(self) -> None:
        """Take back everything that was written."""
        for change in reversed(self._changes):
            change.write(self.objects.labels, forward=False)
        self._changes.clear()


def _boxes_of(change: LabelChange) -> dict[int, Box]:
    """Box of every new label in a change."""
    values = np.unique(change.after.values)
    y, x = change.box[:2]
    if len(values) == 1:
        return {int(values[0]): change.box}
    piece = np.zeros(change.changed.shape, dtype=np.int32)
    runs = np.searchsorted(values, change.after.values).astype(np.int32) + 1
    piece[change.changed] = np.repeat(runs, change.after.lengths)
    boxes = {}
    for value, slices in zip(values.tolist(), ndimage.find_objects(piece), strict=True):
        rows, columns = slices
        boxes[value] = (y + rows.start, x + columns.start, y + rows.stop, x + columns.stop)
    return boxes
