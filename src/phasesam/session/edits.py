"""The edits of a session, each written into a transaction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core import curation
from phasesam.core.errors import InvalidMaskError, InvalidSettingError, SessionError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.session.objects import MAX_ID, ObjectRecord, Plane
from phasesam.session.transaction import Transaction

Overlap = Literal["new_on_top", "keep_existing"]

_VISIBLE_SHARE = 0.5


@dataclass(frozen=True)
class Origin:
    """What a new object is, apart from its pixels.

    Attributes
    ----------
    plane : tuple of int
        Index on the leading axes.
    source : str
        Where it came from.
    class_name : str
        Name of its class.
    overlap : {"new_on_top", "keep_existing"}
        Who gets the pixels that belong to another object already.
    """

    plane: Plane
    source: str
    class_name: str = ""
    overlap: Overlap = "new_on_top"

    def __post_init__(self) -> None:
        if self.overlap not in ("new_on_top", "keep_existing"):
            raise InvalidSettingError(
                f"overlap must be 'new_on_top' or 'keep_existing', got {self.overlap!r}"
            )

    def record(self, object_id: int, score: float = math.nan) -> ObjectRecord:
        """Make the draft of a record; box and area are worked out later."""
        box = (0, 0, 0, 0)
        return ObjectRecord(
            object_id, self.plane, float(score), self.class_name, self.source, box, 0
        )


def add(edit: Transaction, mask: MaskCrop, origin: Origin, score: float) -> int:
    """Add one object."""
    if origin.overlap == "keep_existing":
        free = mask.array() & (edit.objects.labels[origin.plane][mask.slices] == 0)
        mask = MaskCrop.from_array(free, mask.y0, mask.x0)
        if mask.area == 0:
            raise SessionError("the whole mask belongs to other objects already")
    object_id = edit.new_id()
    edit.draft(origin.record(object_id, score))
    edit.set_pixels(origin.plane, mask, object_id)
    return object_id


def add_many(
    edit: Transaction, masks: MaskSet, origin: Origin, replace_old: bool, min_area: float = 0
) -> list[int]:
    """Add all masks of which at least `min_area` pixels show, smaller ones on larger ones."""
    objects = edit.objects
    if len(masks) and masks.shape != objects.plane_shape:
        raise InvalidMaskError(
            f"expected masks of shape {objects.plane_shape}, got {tuple(masks.shape)}"
        )
    after = objects.labels[origin.plane].copy()
    if replace_old:
        old = [r.id for r in objects.in_plane(origin.plane) if r.source == origin.source]
        after[np.isin(after, old)] = 0
    new_ids = np.zeros(len(masks) + 1, dtype=np.int32)
    if len(masks):
        painted = masks.to_labels(order="area", min_area=min_area)
        visible = np.bincount(painted.ravel(), minlength=len(masks) + 1)
        if origin.overlap == "keep_existing":
            free = np.bincount(painted[after == 0], minlength=len(masks) + 1)
            visible[free < np.maximum(_VISIBLE_SHARE * visible, min_area)] = 0
            painted[after != 0] = 0
        for index in np.flatnonzero(visible[1:]).tolist():
            new_ids[index + 1] = edit.new_id()
            edit.draft(origin.record(int(new_ids[index + 1]), float(masks.scores[index])))
        shown = new_ids[painted]
        np.copyto(after, shown, where=shown > 0)
    edit.write(origin.plane, (0, 0), after)
    return [int(i) for i in new_ids if i]


def delete(edit: Transaction, ids: Sequence[int]) -> None:
    """Delete objects."""
    for object_id in ids:
        plane = edit.objects.records[object_id].plane
        edit.set_pixels(plane, edit.objects.mask(object_id), 0)


def merge(edit: Transaction, ids: Sequence[int]) -> int:
    """Give the pixels of all objects to the first one."""
    records = [edit.objects.records[i] for i in ids]
    if len(records) < 2:
        raise SessionError(f"expected at least two objects to merge, got {len(records)}")
    planes = {record.plane for record in records}
    if len(planes) > 1:
        raise SessionError(f"objects of different planes cannot be merged: {sorted(planes)}")
    first = records[0]
    named = next((r.class_name for r in records if r.class_name), "")
    edit.draft(replace(first, score=math.nan, class_name=named, source="merged"))
    for record in records[1:]:
        edit.set_pixels(first.plane, edit.objects.mask(record.id), first.id)
    return first.id


def split(edit: Transaction, object_id: int, parts: Sequence[MaskCrop]) -> list[int]:
    """Give every part but the first an id of its own."""
    record = replace(edit.objects.records[object_id], score=math.nan, source="split")
    edit.draft(record)
    ids = [object_id]
    for part in parts[1:]:
        ids.append(edit.new_id())
        edit.draft(replace(record, id=ids[-1]))
        edit.set_pixels(record.plane, part, ids[-1])
    return ids


def reshape(edit: Transaction, ids: Sequence[int], change: Callable[[MaskCrop], MaskCrop]) -> None:
    """Change outlines; an object grows into free pixels only."""
    for object_id in ids:
        plane = edit.objects.records[object_id].plane
        old = edit.objects.mask(object_id)
        new = change(old)
        whole = curation.merge([old, new])
        after = edit.objects.labels[plane][whole.slices].copy()
        wanted = np.zeros(after.shape, dtype=np.bool_)
        y, x = new.y0 - whole.y0, new.x0 - whole.x0
        wanted[y : y + new.height, x : x + new.width] = new.array()
        own = after == object_id
        if not (wanted & (own | (after == 0))).any():
            continue
        after[own & ~wanted] = 0
        after[wanted & (after == 0)] = object_id
        edit.write(plane, (whole.y0, whole.x0), after)


def set_class(edit: Transaction, ids: Iterable[int], name: str) -> None:
    """Give objects a class."""
    for object_id in ids:
        edit.draft(replace(edit.objects.records[object_id], class_name=name))


def paint(edit: Transaction, labels: ArrayLike, plane: Plane) -> dict[int, int]:
    """Take over a painted plane; returns which labels had to be renamed."""
    objects = edit.objects
    whole = _checked_labels(labels, objects.plane_shape)
    changed = whole != objects.labels[plane]
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if len(rows) == 0:
        return {}
    # A stroke is a small part of a large plane.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    after, changed = whole[box], changed[box]
    _check_values(after)
    renamed: dict[int, int] = {}
    painted = after[changed]
    # One of every run of equal labels is enough; there may be millions of pixels.
    first = np.concatenate([[True], painted[1:] != painted[:-1]])
    values = np.unique(painted[first]).tolist()
    never_used = objects.next_id
    for label in (v for v in values if v):
        record = objects.records.get(label)
        if record is not None and record.plane == plane:
            continue
        new = label
        if label < never_used:
            new = renamed[label] = edit.new_id()
        elif label >= objects.next_id:
            objects.next_id = label + 1
        edit.draft(Origin(plane, "painted").record(new))
    if renamed:
        after = after.copy()
        for label, new in renamed.items():
            after[changed & (after == label)] = new
    edit.write(plane, (int(rows[0]), int(columns[0])), after)
    return renamed


def _checked_labels(labels: ArrayLike, shape: tuple[int, int]) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise InvalidMaskError(
            f"expected integer labels of shape {shape}, got {array.shape} {array.dtype}"
        )
    return array


def _check_values(labels: NDArray[Any]) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MAX_ID:
        raise InvalidMaskError(f"labels must be 0 to {MAX_ID - 1}, got {low} to {high}")
