"""Measurements of a session's objects, kept until the objects change."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from phasesam.core.measurements import ObjectTable, join_tables, measure
from phasesam.core.types import PixelSize
from phasesam.session.objects import Box, ObjectMap, ObjectRecord, Plane


class TableCache:
    """The last measurements of all objects that were ever asked for."""

    def __init__(self) -> None:
        self._settings: tuple[PixelSize, Box | None] | None = None
        self._table: ObjectTable | None = None
        self._stale: set[int] = set()

    def forget(self, ids: Iterable[int]) -> None:
        """Measure these objects again when they are asked for."""
        self._stale.update(ids)

    def measure(
        self,
        objects: ObjectMap,
        pixel_size: PixelSize,
        field_of_view: Box | None,
        plane: Plane | None,
    ) -> ObjectTable:
        """Return the table of one plane, or of all for None, by ascending id."""
        if self._settings != (pixel_size, field_of_view):
            self._settings = (pixel_size, field_of_view)
            self._table = None
        wanted = objects.in_plane(plane)
        known: set[int] = set()
        pieces = []
        if self._table is not None:
            valid = ~np.isin(self._table["id"], list(self._stale))
            pieces.append(self._table.select(valid))
            known = set(self._table["id"][valid].tolist())
        by_plane: dict[Plane, list[ObjectRecord]] = {}
        for record in wanted:
            if record.id not in known:
                by_plane.setdefault(record.plane, []).append(record)
        for index, records in sorted(by_plane.items()):
            pieces.append(_measure(objects, index, records, pixel_size, field_of_view))
        if not pieces:
            pieces.append(_measure(objects, None, [], pixel_size, field_of_view))
        table = join_tables(pieces)
        self._table = table.select(np.argsort(table["id"], kind="stable"))
        self._stale.clear()
        ids = np.array([record.id for record in wanted], dtype=np.int64)
        return self._table.select(np.isin(self._table["id"], ids))


def _measure(
    objects: ObjectMap,
    plane: Plane | None,
    records: list[ObjectRecord],
    pixel_size: PixelSize,
    field_of_view: Box | None,
) -> ObjectTable:
    n_leading = objects.labels.ndim - 2
    index = (0,) * n_leading if plane is None else plane
    # Only the part of the plane that holds these objects is looked at.
    boxes = np.array([r.box for r in records], dtype=np.int64).reshape(-1, 4)
    y, x = (int(v) for v in boxes[:, :2].min(axis=0, initial=1 << 40))
    bottom, right = (int(v) for v in boxes[:, 2:].max(axis=0, initial=0))
    view = field_of_view if field_of_view is not None else (0, 0, *objects.plane_shape)
    table = measure(
        objects.labels[index][y:bottom, x:right],
        pixel_size,
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
