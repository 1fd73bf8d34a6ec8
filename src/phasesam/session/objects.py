"""The committed objects of a session: a label image and one record per label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import Box
from phasesam.core.errors import InvalidMaskError, SessionError
from phasesam.core.mask_set import MaskCrop

Plane = tuple[int, ...]

MAX_ID = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class ObjectRecord:
    """One committed object.

    Attributes
    ----------
    id : int
        Its label, from 1 up; unique in the whole array.
    plane : tuple of int
        Index on the leading axes of the array; empty for a single image.
    score : float
        Predicted IoU, 0–1; NaN when it is not known (painted, merged, split).
    class_name : str
        Name of the class, empty for none.
    source : str
        Where it came from: ``"prompt"``, ``"automatic"``, ``"painted"``, ...
    box : (int, int, int, int)
        Bounding box ``(y0, x0, y1, x1)``, half open, in pixels.
    area : int
        Number of pixels.
    """

    id: int
    plane: Plane
    score: float
    class_name: str
    source: str
    box: Box
    area: int


class ObjectMap:
    """Labels and records; every label above 0 has a record and the other way round.

    Parameters
    ----------
    shape : tuple of int
        ``(..., h, w)`` of the array.

    Attributes
    ----------
    labels : (..., h, w) int32 array
        0 where no object is. Pages that were never written take no memory.
    records : dict of int to ObjectRecord
        By id.
    next_id : int
        Larger than every id that was ever used.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or any(int(n) < 1 for n in shape):
            raise InvalidMaskError(
                f"a session needs a shape (..., h, w) of positive numbers, got {shape}"
            )
        try:
            self.labels: NDArray[np.int32] = np.zeros([int(n) for n in shape], dtype=np.int32)
        except (MemoryError, ValueError) as error:
            raise SessionError(
                f"there is no room for labels of shape {shape}: {4 * math.prod(shape) / 1e9:.0f} GB"
            ) from error
        self.records: dict[int, ObjectRecord] = {}
        self.next_id = 1

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of one plane."""
        return self.labels.shape[-2], self.labels.shape[-1]

    def at_present(self) -> ObjectMap:
        """Copy the records but not the labels, which go on changing with this map."""
        present = copy(self)
        present.records = dict(self.records)
        return present

    def checked_plane(self, plane: Iterable[int]) -> Plane:
        """Return ``plane`` as a tuple of ints; `SessionError` unless it is within the array."""
        try:
            index = tuple(int(i) for i in plane)
        except (TypeError, ValueError) as error:
            raise SessionError(f"expected a plane index such as (3,), got {plane!r}") from error
        leading = self.labels.shape[:-2]
        if len(index) != len(leading) or not all(
            0 <= i < n for i, n in zip(index, leading, strict=True)
        ):
            raise SessionError(
                f"expected a plane index within {leading} for an array of shape "
                f"{self.labels.shape}, got {index}"
            )
        return index

    def checked_ids(self, ids: int | Iterable[int]) -> list[int]:
        """Return existing ids, each once, in the given order; `SessionError` for others."""
        wanted = [ids] if isinstance(ids, int | np.integer) else list(ids)
        unique = list(dict.fromkeys(int(i) for i in wanted))
        missing = [i for i in unique if i not in self.records]
        if missing:
            raise SessionError(f"there is no object {', '.join(map(str, missing[:5]))}")
        return unique

    def checked_mask(self, mask: NDArray[np.bool_] | MaskCrop) -> MaskCrop:
        """Return a non-empty mask that lies within a plane, as a crop."""
        height, width = self.plane_shape
        if isinstance(mask, MaskCrop):
            crop = mask
            if min(crop.y0, crop.x0) < 0 or crop.box[2] > height or crop.box[3] > width:
                raise InvalidMaskError(
                    f"expected a mask within {height} × {width} pixels, got the box {crop.box}"
                )
        else:
            array = np.asarray(mask)
            if array.shape != (height, width):
                raise InvalidMaskError(
                    f"expected a mask of shape {(height, width)}, got {array.shape}"
                )
            crop = MaskCrop.from_array(array != 0)
        if crop.area == 0:
            raise InvalidMaskError("expected a mask with at least one pixel, got an empty one")
        return crop

    def mask(self, object_id: int) -> MaskCrop:
        """Cut one object out of the labels."""
        (object_id,) = self.checked_ids(object_id)
        record = self.records[object_id]
        y0, x0, y1, x1 = record.box
        box = self.labels[record.plane][y0:y1, x0:x1]
        return MaskCrop.from_array(box == object_id, y0, x0)

    def in_plane(self, plane: Plane | None) -> list[ObjectRecord]:
        """List the records of one plane (of all for None) by ascending id."""
        found = (r for r in self.records.values() if plane is None or r.plane == plane)
        return sorted(found, key=lambda record: record.id)
