"""Measurements of a session's objects, kept until the objects change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError
from phasesam.core.measurements import ObjectTable, join_tables, measure
from phasesam.core.types import PixelSize, ProgressCallback, StopCallback
from phasesam.session.objects import Box, ObjectMap, ObjectRecord, Plane

_PART = 256


@dataclass(frozen=True, eq=False)
class Measuring:
    """Objects that have to be measured; `work_out` may be called in a worker.

    The labels are not copied: what is measured of an object that is edited in the meantime
    may be wrong, and is not kept by `TableCache.take`.

    Attributes
    ----------
    labels : (..., h, w) int32 array
        Of the session.
    records : tuple of ObjectRecord
        The objects.
    pixel_size : PixelSize
        For the physical columns.
    field_of_view : (int, int, int, int) or None
        Box ``(y0, x0, y1, x1)``; objects that reach its sides touch the edge.
    serial : int
        State of the session.
    """

    labels: NDArray[np.int32]
    records: tuple[ObjectRecord, ...]
    pixel_size: PixelSize
    field_of_view: Box | None
    serial: int

    @property
    def pixels(self) -> int:
        """How many pixels have to be looked at, roughly."""
        return sum(
            (y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in (record.box for record in self.records)
        )

    def work_out(
        self,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> ObjectTable:
        """Measure the objects, in no particular order.

        Raises
        ------
        InvalidMaskError
            If an object has no pixels any more.
        CancelledError
            If ``should_stop`` said so.
        """
        pieces = [self._measure(None, [])]
        done = 0
        for plane, records in _neighbours(self.records):
            if should_stop is not None and should_stop():
                raise CancelledError("measuring was stopped")
            pieces.append(self._measure(plane, records))
            done += len(records)
            if progress is not None:
                progress(done, len(self.records))
        return join_tables(pieces)

    def _measure(self, plane: Plane | None, records: list[ObjectRecord]) -> ObjectTable:
        n_leading = self.labels.ndim - 2
        index = (0,) * n_leading if plane is None else plane
        # Only the part of the plane that holds these objects is looked at.
        boxes = np.array([r.box for r in records], dtype=np.int64).reshape(-1, 4)
        y, x = (int(v) for v in boxes[:, :2].min(axis=0, initial=1 << 40))
        bottom, right = (int(v) for v in boxes[:, 2:].max(axis=0, initial=0))
        view = self.field_of_view or (0, 0, *self.labels.shape[-2:])
        table = measure(
            self.labels[index][y:bottom, x:right],
            self.pixel_size,
            ids=[record.id for record in records],
            scores=[record.score for record in records],
            classes=[record.class_name for record in records],
            field_of_view=(view[0] - y, view[1] - x, view[2] - y, view[3] - x),
        )
        columns = {
            name: table[name] + (y if "y" in name else x)
            for name in ("centroid_y", "centroid_x", "y0", "x0", "y1", "x1")
        }
        for axis in range(n_leading):
            columns[f"plane_{axis}"] = np.full(len(records), index[axis], dtype=np.int64)
        return table.with_columns(columns)


class TableCache:
    """The last measurements of all objects that were ever asked for."""

    def __init__(self) -> None:
        self._settings: tuple[PixelSize, Box | None] | None = None
        self._table: ObjectTable | None = None
        self._stale: set[int] = set()
        self._serial = 0
        self._edited: dict[int, int] = {}

    def forget(self, ids: Iterable[int]) -> None:
        """Measure these objects again when they are asked for."""
        self._serial += 1
        for object_id in ids:
            self._stale.add(object_id)
            self._edited[object_id] = self._serial

    def ask(
        self,
        objects: ObjectMap,
        pixel_size: PixelSize,
        field_of_view: Box | None,
        plane: Plane | None,
    ) -> Measuring:
        """List what is not known of one plane, or of all for None."""
        known = set(self._rows(pixel_size, field_of_view)["id"].tolist()) - self._stale
        missing = tuple(r for r in objects.in_plane(plane) if r.id not in known)
        return Measuring(objects.labels, missing, pixel_size, field_of_view, self._serial)

    def take(self, measuring: Measuring, table: ObjectTable) -> None:
        """Keep what was measured, except of objects edited since the question was asked."""
        if self._settings != (measuring.pixel_size, measuring.field_of_view):
            return
        ids = table["id"].tolist()
        valid = np.array([self._edited.get(i, 0) <= measuring.serial for i in ids], np.bool_)
        table = table.select(valid)
        self._stale.difference_update(table["id"].tolist())
        if self._table is not None:
            others = self._table.select(~np.isin(self._table["id"], table["id"]))
            table = join_tables([others, table])
        self._table = table.select(np.argsort(table["id"], kind="stable"))

    def known(
        self,
        objects: ObjectMap,
        pixel_size: PixelSize,
        field_of_view: Box | None,
        plane: Plane | None,
    ) -> ObjectTable:
        """Return the rows of one plane, or of all for None, by ascending id.

        Scores and classes are those of the records, sizes those measured last.
        """
        table = self._rows(pixel_size, field_of_view)
        if self._table is None:
            # A table without rows has all columns, too.
            table = Measuring(objects.labels, (), pixel_size, field_of_view, 0).work_out()
        wanted = {record.id: record for record in objects.in_plane(plane)}
        table = table.select(np.isin(table["id"], np.fromiter(wanted, dtype=np.int64)))
        records = [wanted[i] for i in table["id"].tolist()]
        return table.with_columns(
            {
                "class": np.array([r.class_name for r in records], dtype=object),
                "score": np.array([r.score for r in records], dtype=np.float64),
            }
        )

    def _rows(self, pixel_size: PixelSize, field_of_view: Box | None) -> ObjectTable:
        if self._settings != (pixel_size, field_of_view):
            self._settings = (pixel_size, field_of_view)
            self._table = None
        if self._table is None:
            return ObjectTable({"id": np.zeros(0, np.int64)}, pixel_size)
        return self._table


def _neighbours(records: Iterable[ObjectRecord]) -> list[tuple[Plane, list[ObjectRecord]]]:
    """Put objects together that lie in the same part of a plane.

    Measuring passes several times over the pixels of a box around all of them. A small box
    stays in the cache of the processor, and two objects far apart do not make a large one.
    """
    groups: dict[tuple[Plane, int, int], list[ObjectRecord]] = {}
    for record in records:
        place = (record.plane, record.box[0] // _PART, record.box[1] // _PART)
        groups.setdefault(place, []).append(record)
    return [(plane, group) for (plane, _, _), group in sorted(groups.items())]
