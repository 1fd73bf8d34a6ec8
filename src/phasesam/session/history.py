"""Undo and redo: differences of labels and records, limited by bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from phasesam.session.objects import Box, ObjectMap, ObjectRecord, Plane

_RECORD_BYTES = 400


@dataclass(frozen=True, eq=False)
class _Runs:
    """A sequence of labels as values with lengths: edits are mostly long runs of one label."""

    values: NDArray[np.int32]
    lengths: NDArray[np.int32]

    @classmethod
    def encode(cls, sequence: NDArray[np.int32]) -> _Runs:
        starts = np.flatnonzero(np.diff(sequence, prepend=sequence[:1] - 1))
        lengths = np.diff(starts, append=len(sequence))
        return cls(sequence[starts], lengths.astype(np.int32))

    def decode(self) -> NDArray[np.int32]:
        return np.repeat(self.values, self.lengths)


@dataclass(frozen=True, eq=False)
class LabelChange:
    """The pixels of one plane that an edit changed.

    Attributes
    ----------
    plane : tuple of int
        Index on the leading axes.
    box : (int, int, int, int)
        Smallest half-open box ``(y0, x0, y1, x1)`` that holds the changed pixels.
    bits : uint8 array
        Packed: which pixels of the box changed.
    before, after : _Runs
        The labels of these pixels in raster order.
    """

    plane: Plane
    box: Box
    bits: NDArray[np.uint8]
    before: _Runs
    after: _Runs

    @classmethod
    def between(
        cls, plane: Plane, corner: tuple[int, int], before: NDArray[np.int32], after: NDArray
    ) -> LabelChange | None:
        """Compare two (h, w) pieces of a plane that begin at ``corner``; None when equal."""
        changed = before != after
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        if len(rows) == 0:
            return None
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        changed = changed[part]
        y0, x0 = corner[0] + int(rows[0]), corner[1] + int(columns[0])
        box = (y0, x0, y0 + changed.shape[0], x0 + changed.shape[1])
        return cls(
            plane,
            box,
            np.packbits(changed),
            _Runs.encode(before[part][changed]),
            _Runs.encode(after[part][changed].astype(np.int32)),
        )

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Which pixels of the box changed, (height, width) bool."""
        shape = self.box[2] - self.box[0], self.box[3] - self.box[1]
        return np.unpackbits(self.bits, count=shape[0] * shape[1]).view(np.bool_).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Memory that this change takes."""
        runs = (self.before, self.after)
        return self.bits.nbytes + sum(r.values.nbytes + r.lengths.nbytes for r in runs)

    def write(self, labels: NDArray[np.int32], forward: bool) -> None:
        """Make the change in ``labels``, or take it back."""
        y0, x0, y1, x1 = self.box
        runs = self.after if forward else self.before
        labels[self.plane][y0:y1, x0:x1][self.changed] = runs.decode()


@dataclass(frozen=True, eq=False)
class Step:
    """One edit as the user sees it.

    Attributes
    ----------
    name : str
        What was done.
    labels : tuple of LabelChange
        In the order in which they were made.
    records : mapping of int to (ObjectRecord or None, ObjectRecord or None)
        Record before and after, None where there was no object.
    touched : frozenset of int
        Ids whose pixels or record changed.
    """

    name: str
    labels: tuple[LabelChange, ...]
    records: Mapping[int, tuple[ObjectRecord | None, ObjectRecord | None]]
    touched: frozenset[int]

    @cached_property
    def title(self) -> str:
        """Shown beside *Undo*: the name, and in a stack the plane, which may be out of sight."""
        planes = {change.plane for change in self.labels}
        for records in self.records.values():
            planes.update(record.plane for record in records if record is not None)
        planes.discard(())
        if len(planes) > 1:
            return f"{self.name} ({len(planes)} planes)"
        return "".join([self.name, *(f" (plane {', '.join(map(str, p))})" for p in planes)])

    @cached_property
    def nbytes(self) -> int:
        """Memory that this step takes, roughly."""
        return sum(change.nbytes for change in self.labels) + _RECORD_BYTES * (
            len(self.records) + len(self.touched)
        )

    def replay(self, objects: ObjectMap, forward: bool) -> None:
        """Make the edit again, or take it back."""
        for change in self.labels if forward else reversed(self.labels):
            change.write(objects.labels, forward)
        for object_id, (before, after) in self.records.items():
            record = after if forward else before
            if record is None:
                objects.records.pop(object_id, None)
            else:
                objects.records[object_id] = record

    def boxes(self) -> dict[Plane, Box]:
        """Smallest box per plane that holds everything that changed."""
        boxes: dict[Plane, Box] = {}
        for change in self.labels:
            a, b = boxes.get(change.plane, change.box), change.box
            boxes[change.plane] = (
                min(a[0], b[0]),
                min(a[1], b[1]),
                max(a[2], b[2]),
                max(a[3], b[3]),
            )
        return boxes


class History:
    """Steps that can be taken back or made again; the oldest go when bytes run out.

    Parameters
    ----------
    max_bytes : int
        Limit for all steps together. The latest step is always kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._done: list[Step] = []
        self._undone: list[Step] = []

    @property
    def nbytes(self) -> int:
        """Memory that all steps take, roughly."""
        return sum(step.nbytes for step in (*self._done, *self._undone))

    @property
    def last(self) -> Step | None:
        """The step that `undo` takes back."""
        return self._done[-1] if self._done else None

    @property
    def undo_name(self) -> str | None:
        """Title of the step that `undo` takes back."""
        return self._done[-1].title if self._done else None

    @property
    def redo_name(self) -> str | None:
        """Title of the step that `redo` makes again."""
        return self._undone[-1].title if self._undone else None

    def push(self, step: Step) -> None:
        """Add a step that was just made; what was undone before can no longer be redone."""
        self._undone.clear()
        self._done.append(step)
        total = self.nbytes
        drop = 0
        while total > self.max_bytes and drop < len(self._done) - 1:
            total -= self._done[drop].nbytes
            drop += 1
        del self._done[:drop]

    def undo(self) -> Step | None:
        """Move back by one step and return it."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> Step | None:
        """Move forward by one step and return it."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]
