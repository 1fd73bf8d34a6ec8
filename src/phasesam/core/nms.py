"""Non-maximum suppression of boxes and masks, and the rule for nested masks, in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.overlaps import Criterion, overlap_matrix, overlap_ratio

__all__ = ["box_nms", "mask_nms", "nesting", "overlap_matrix", "overlap_ratio"]

_PAIRS_AT_ONCE = 1 << 20
_SLACK = 1e-4  # more than the IoU can be off by rounding in float32

NestingRule = Literal["both", "outer", "inner"]


def box_nms(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Keep the best of every group of boxes that overlap strongly.

    Gives the same indices as ``torchvision.ops.nms``: coordinates are taken as points on
    a line (no pixel is added to the sides), a box goes when its IoU with a better one that
    stays is *greater* than the threshold, and equal scores keep their order.

    Parameters
    ----------
    boxes : (n, 4) array-like of float32, float64 or integers
        ``(y0, x0, y1, x1)``. The arithmetic is done in the given precision, because an IoU
        that equals the threshold falls to either side of it by rounding; integers are
        computed as float32, as SAM does.
    scores : (n,) array-like
        Larger is better; NaN counts as worst.
    threshold : float
        IoU, 0–1.

    Returns
    -------
    (k,) int64 array
        Indices of the boxes that stay, best first.

    Raises
    ------
    InvalidMaskError
        If the shapes do not fit.
    InvalidSettingError
        If the threshold is not within 0–1.
    """
    _check_threshold(threshold)
    box = np.asarray(boxes)
    box = box.reshape(-1, 4) if box.size == 0 else box
    score = np.asarray(scores).reshape(-1)
    if box.ndim != 2 or box.shape[1] != 4 or len(box) != len(score):
        raise InvalidMaskError(
            f"expected boxes (n, 4) and n scores, got {box.shape} and {len(score)} scores"
        )
    if box.dtype not in (np.float32, np.float64):
        box = box.astype(np.float32)
    order = _best_first(score)
    box = np.ascontiguousarray(box[order].T)
    worse, better = _overlapping_boxes(box, threshold)
    return order[_greedy(len(order), better, worse)]


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InvalidSettingError(f"the overlap threshold must be within 0–1, got {threshold}")


def _best_first(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Sort by falling score; ties keep their order, NaN comes last."""
    return np.argsort(-scores.astype(np.float64), kind="stable")


def _overlapping_boxes(
    box: NDArray[np.floating], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (worse, better) of ranks whose IoU exceeds the threshold; ``box`` is (4, n)."""
    areas = (box[3] - box[1]) * (box[2] - box[0])
    limit = np.float64(threshold)
    worse, better = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first, second in _near_pairs(box, threshold):
        a, b = np.minimum(first, second), np.maximum(first, second)
        height = np.minimum(box[2][a], box[2][b]) - np.maximum(box[0][a], box[0][b])
        width = np.minimum(box[3][a], box[3][b]) - np.maximum(box[1][a], box[1][b])
        touch = (height > 0) & (width > 0)
        a, b = a[touch], b[touch]
        shared = height[touch] * width[touch]
        over = shared / (areas[a] + areas[b] - shared) > limit
        better.append(a[over])
        worse.append(b[over])
    return np.concatenate(worse), np.concatenate(better)


def _near_pairs(
    box: NDArray[np.floating], threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of boxes that may reach the threshold, in chunks of bounded size.

    The IoU of two boxes is at most the IoU of their extents along one axis, so that the
    box which starts second starts within ``(1 - threshold)`` of the first one's extent.
    Sorting along an axis then leaves a short run of partners for every box; the extents
    along the other axis rule out most of them.
    """
    share = max(0.0, threshold - _SLACK)
    best = None
    for axis in (0, 1):
        order = np.argsort(box[axis], kind="stable")
        start = box[axis][order].astype(np.float64)
        extent = np.maximum(box[axis + 2][order].astype(np.float64) - start, 0)
        reach = start + extent * (1.0 - share)
        last = np.searchsorted(start, reach, side="right")
        count = np.maximum(last - np.arange(len(order)) - 1, 0)
        if best is None or count.sum() < best[1].sum():
            best = (order, count, 1 - axis)
    if best is None:
        return
    order, count, other = best
    low, high = box[other][order], box[other + 2][order]
    ends = np.cumsum(count)
    done = 0
    while done < len(order):
        base = ends[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, base + _PAIRS_AT_ONCE, side="right")))
        part = count[done:stop]
        first = np.repeat(np.arange(done, stop), part)
        step = np.arange(len(first)) - np.repeat(ends[done:stop] - part - base, part)
        second = first + 1 + step
        bottom, top = np.maximum(low[first], low[second]), np.minimum(high[first], high[second])
        outer = np.maximum(high[first], high[second]) - np.minimum(low[first], low[second])
        near = (top > bottom) & (top - bottom >= share * outer)
        yield order[first[near]], order[second[near]]
        done = stop


def _greedy(n: int, better: NDArray[np.int64], worse: NDArray[np.int64]) -> NDArray[np.int64]:
    """Walk ranks best first; every rank that stays removes the worse ones linked to it."""
    order = np.argsort(better, kind="stable")
    bounds = np.searchsorted(better[order], np.arange(n + 1)).tolist()
    partners = worse[order]
    gone = np.zeros(n, dtype=np.bool_)
    for rank in np.flatnonzero(np.diff(bounds)).tolist():
        if not gone[rank]:
            gone[partners[bounds[rank] : bounds[rank + 1]]] = True
    return np.flatnonzero(~gone)


def mask_nms(
    intersections: sparse.spmatrix,
    areas: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    criterion: Criterion = "iou",
) -> NDArray[np.int64]:
    """Keep the best of every group of masks that overlap strongly.

    Parameters
    ----------
    intersections : (n, n) sparse matrix
        From `overlap_matrix`.
    areas : (n,) array-like
        Pixels per mask.
    scores : (n,) array-like
        Larger is better; ties keep their order, NaN counts as worst.
    threshold : float
        A mask goes when its overlap with a better one that stays is greater, 0–1.
    criterion : {"iou", "iomin"}
        ``"iomin"`` also removes masks that mostly lie inside another one.

    Returns
    -------
    (k,) int64 array
        Indices of the masks that stay, best first.

    Raises
    ------
    InvalidMaskError
        If the sizes do not fit.
    InvalidSettingError
        If the threshold or the criterion is unknown.
    """
    _check_threshold(threshold)
    order = _best_first(np.asarray(scores, dtype=np.float64).reshape(-1))
    ratio = overlap_ratio(intersections, areas, criterion).tocoo()
    if len(order) != ratio.shape[0]:
        raise InvalidMaskError(f"expected {ratio.shape[0]} scores, got {len(order)}")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    first, second = rank[ratio.row], rank[ratio.col]
    link = (ratio.data > threshold) & (first < second)
    return order[_greedy(len(order), first[link], second[link])]


def nesting(
    intersections: sparse.spmatrix,
    areas: ArrayLike,
    rule: NestingRule = "outer",
    inside: float = 0.9,
) -> NDArray[np.int64]:
    """Decide between masks that lie in one another.

    Parameters
    ----------
    intersections : (n, n) sparse matrix
        From `overlap_matrix`.
    areas : (n,) array-like
        Pixels per mask.
    rule : {"both", "outer", "inner"}
        ``"outer"`` drops every mask that lies in one that stays, going from large to
        small; ``"inner"`` drops every mask that holds one that stays, going from small
        to large; ``"both"`` keeps all.
    inside : float
        A mask lies in a larger one when at least this share of its pixels does, 0–1. Of
        two equally large masks the first counts as the larger one.

    Returns
    -------
    (k,) int64 array
        Indices of the masks that stay, ascending.

    Raises
    ------
    InvalidSettingError
        If the rule is unknown or ``inside`` is not within 0–1.
    """
    if rule not in ("both", "outer", "inner"):
        raise InvalidSettingError(f"nested masks: expected both, outer or inner, got {rule!r}")
    if not 0 < inside <= 1:
        raise InvalidSettingError(f"inside must be above 0 and at most 1, got {inside}")
    pairs = sparse.coo_matrix(intersections)
    area = np.asarray(areas, dtype=np.float64).reshape(-1)
    if pairs.shape != (len(area), len(area)):
        raise InvalidMaskError(f"expected {pairs.shape[0]} areas, got {len(area)}")
    n = len(area)
    if rule == "both":
        return np.arange(n)
    order = np.argsort(-area, kind="stable")
    if rule == "inner":
        order = order[::-1]
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    smaller = np.minimum(area[pairs.row], area[pairs.col])
    first, second = rank[pairs.row], rank[pairs.col]
    link = (pairs.data >= inside * smaller) & (first < second) & (smaller > 0)
    return np.sort(order[_greedy(n, first[link], second[link])])
