"""Boxes ``(y0, x0, y1, x1)`` in pixels, half open."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[int, int, int, int]


def contains(view: Sequence[float], box: Sequence[float]) -> bool:
    """Whether all of a box lies in another."""
    return bool(box[0] >= view[0] and box[1] >= view[1] and box[2] <= view[2] and box[3] <= view[3])


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes have a pixel in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def enclosing(first: Box, second: Box) -> Box:
    """Box around two boxes."""
    return (
        min(first[0], second[0]), min(first[1], second[1]),
        max(first[2], second[2]), max(first[3], second[3]),
    )  # fmt: skip


def cut_by(view: Box, box: Box, shape: tuple[int, int]) -> bool:
    """Whether a box ends at the edge of a part of an image although the image goes on there."""
    ends = (
        (box[0] <= view[0], view[0] > 0), (box[1] <= view[1], view[1] > 0),
        (box[2] >= view[2], view[2] < shape[0]), (box[3] >= view[3], view[3] < shape[1]),
    )  # fmt: skip
    return any(touches and goes_on for touches, goes_on in ends)
