"""Objects that were taken out to be prompted again: they are not lost until they are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import SessionError
from phasesam.core.mask_set import MaskCrop
from phasesam.session import edits
from phasesam.session.history import Step
from phasesam.session.objects import ObjectMap, ObjectRecord
from phasesam.session.undoable import UndoableObjects


@dataclass(frozen=True)
class OpenObject:
    """One object that is out.

    Attributes
    ----------
    record : ObjectRecord
        As it was.
    mask : MaskCrop
        Its pixels.
    step : Step or None
        The step of the history that took it out.
    """

    record: ObjectRecord
    mask: MaskCrop
    step: Step | None


def free_part(labels: NDArray[np.int32], mask: MaskCrop) -> MaskCrop:
    """Leave the pixels of a mask that are free in the ``(h, w)`` labels."""
    free = mask.array() & (labels[mask.slices] == 0)
    return MaskCrop.from_array(free, mask.y0, mask.x0)


def with_open_objects(
    objects: ObjectMap, opened: dict[int, OpenObject]
) -> Iterator[tuple[ObjectRecord, MaskCrop]]:
    """List all objects by ascending id, those that are out with the pixels still free."""
    found = [(record, objects.mask(record.id)) for record in objects.in_plane(None)]
    taken: dict[tuple[int, ...], NDArray[np.int32]] = {}
    for object_id, entry in reversed(opened.items()):  # the last one lay on top
        plane = entry.record.plane
        if object_id in objects.records:
            continue
        labels = taken.setdefault(plane, objects.labels[plane].copy())
        mask = free_part(labels, entry.mask)
        if mask.area:
            labels[mask.slices][mask.array()] = object_id
            found.append((entry.record, mask))
    yield from sorted(found, key=lambda pair: pair[0].id)


class ReopenableObjects(UndoableObjects):
    """Objects that can be taken out for a while and put back.

    Parameters
    ----------
    objects : ObjectMap
        What is edited.
    """

    def __init__(self, objects: ObjectMap) -> None:
        super().__init__(objects)
        self._open: dict[int, OpenObject] = {}

    @property
    def open_objects(self) -> tuple[ObjectRecord, ...]:
        """Records of the objects that are out; they are saved with the others."""
        return tuple(
            entry.record for key, entry in self._open.items() if key not in self._objects.records
        )

    def remove_for_editing(self, object_id: int) -> NDArray[np.bool_]:
        """Take an object out so that it can be prompted again; returns its (h, w) mask.

        It counts as open until `finish_editing` or `put_back` is called.
        """
        crop, record = self.object_mask(object_id), self.record(object_id)
        mask = np.zeros(self._objects.plane_shape, dtype=np.bool_)
        mask[crop.slices] = crop.array()
        # First, so that an autosave at any time has it.
        self._open[record.id] = OpenObject(record, crop, None)
        with self._step(f"Re-open object {record.id}") as edit:
            edits.delete(edit, [record.id])
        self._open[record.id] = OpenObject(record, crop, self._history.last)
        return mask

    def finish_editing(self, object_id: int) -> None:
        """Forget an open object: something else has taken its place."""
        self._open.pop(int(object_id), None)

    def put_back(self, object_id: int) -> None:
        """Bring an open object back as it was; nothing happens if it is not open.

        If re-opening it was the last step, that step is undone.

        Raises
        ------
        SessionError
            If other objects cover it by now.
        """
        entry = self._open.pop(int(object_id), None)
        if entry is None or object_id in self._objects.records:
            return
        if entry.step is not None and entry.step is self._history.last:
            self.undo()
            return
        plane = entry.record.plane
        mask = free_part(self._objects.labels[plane], entry.mask)
        if mask.area == 0:
            raise SessionError(
                f"other objects cover object {object_id} by now; undo brings it back"
            )
        with self._step(f"Put back object {object_id}") as edit:
            edit.draft(entry.record)
            edit.set_pixels(plane, mask, entry.record.id)

    def put_all_back(self) -> int:
        """Bring all open objects back, as far as others leave room; returns how many."""
        count = 0
        for object_id in list(self._open):
            try:
                self.put_back(object_id)
                count += 1
            except SessionError:
                continue  # undo brings it back
        return count
