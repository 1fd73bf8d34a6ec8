"""From candidates and thresholds to numbers, sentences and a painted preview. No Qt in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.mask_set import MaskSet

if TYPE_CHECKING:
    from phasesam.engines.automatic import Candidates
    from phasesam.engines.automatic_config import FilterConfig

_PREVIEW_COLOURS = 250
_REASONS = {
    "pred_iou": "score",
    "stability": "stability",
    "area": "area",
    "edge": "at the edge",
    "nms": "overlap",
    "overlap": "overlap",
    "nested": "nested",
}
_PAIRS_AT_ONCE = 1 << 21
_COMPARED = 4000


@dataclass(frozen=True)
class FoundCandidates:
    """What one run of the network gave, with all that the sliders show of it.

    Attributes
    ----------
    candidates : Candidates
        All candidate masks.
    plane : tuple of int
        The plane they were found on.
    valid : (h, w) bool array or None
        Where objects were looked for; None for the whole plane.
    seconds : float
        How long the run took.
    bar : int or None
        First row of the data bar at the bottom, if there is one.
    overlaps : (n,) float32 array
        For each candidate, the largest box IoU with a better one.
    """

    candidates: Candidates
    plane: tuple[int, ...]
    valid: NDArray[np.bool_] | None
    seconds: float
    bar: int | None = None
    overlaps: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def valid_pixels(self) -> int:
        """Number of pixels in which objects were looked for."""
        if self.valid is None:
            return int(self.candidates.shape[0] * self.candidates.shape[1])
        return int(np.count_nonzero(self.valid))


@dataclass(frozen=True)
class Kept:
    """What a filter left.

    Attributes
    ----------
    masks : MaskSet
        The masks that stay.
    coverage : float
        Share of the searched area that they cover, 0-1.
    """

    masks: MaskSet
    coverage: float


def largest_overlaps(boxes: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.float32]:
    """Compute for each box its largest IoU with a box of higher score.

    Parameters
    ----------
    boxes : (n, 4) array
        ``(y0, x0, y1, x1)`` in pixels.
    scores : (n,) array
        Larger is better; of equal scores the first is the better one.

    Returns
    -------
    (n,) float32 array
        0 for the best box; NaN for boxes that 4000 others are better than.
    """
    result = np.full(len(boxes), np.nan, np.float32)
    order = np.argsort(-np.nan_to_num(np.asarray(scores, np.float64)), kind="stable")[:_COMPARED]
    n = len(order)
    result[order[:1]] = 0
    box = np.asarray(boxes, np.float32).reshape(-1, 4)[order]
    area = np.maximum(box[:, 2] - box[:, 0], 0) * np.maximum(box[:, 3] - box[:, 1], 0)
    step = max(1, _PAIRS_AT_ONCE // max(1, n))
    for start in range(1, n, step):
        part = box[start : start + step]
        rest = box[: start + len(part)]
        high = np.minimum(part[:, None, 2:], rest[None, :, 2:])
        low = np.maximum(part[:, None, :2], rest[None, :, :2])
        shared = np.maximum(high - low, 0).prod(axis=2)
        union = area[start : start + len(part), None] + area[None, : len(rest)] - shared
        ratio = shared / np.maximum(union, 1e-6)
        # Only better ones count: those before the row's own place.
        places = np.arange(start, start + len(part))[:, None]
        ratio[np.arange(len(rest))[None, :] >= places] = 0
        result[order[start : start + len(part)]] = ratio.max(axis=1)
    return result


def apply_filter(found: FoundCandidates, config: FilterConfig, painted: NDArray[np.uint8]) -> Kept:
    """Filter the candidates and paint what stays.

    Parameters
    ----------
    found : FoundCandidates
        The candidates.
    config : FilterConfig
        The thresholds.
    painted : (h, w) uint8 array
        Overwritten: 0 where no mask is, else a colour number.
    """
    floor, stability_floor = found.candidates.floor, found.candidates.stability_floor
    masks = found.candidates.filter(
        config.changed(
            pred_iou=max(config.pred_iou, float(floor)),
            stability=max(config.stability, float(stability_floor)),
        )
    )
    paint(masks, painted)
    covered = painted if found.valid is None else painted * found.valid
    return Kept(masks, float(np.count_nonzero(covered)) / max(1, found.valid_pixels))


def filter_above_floors(candidates: Candidates, config: FilterConfig) -> MaskSet:
    """Filter; a threshold below what the search kept means all that it kept."""
    return candidates.filter(
        config.changed(
            pred_iou=max(config.pred_iou, float(candidates.floor)),
            stability=max(config.stability, float(candidates.stability_floor)),
        )
    )


def paint(masks: MaskSet, out: NDArray[np.uint8]) -> None:
    """Paint masks in place, smaller ones on larger ones.

    A mask keeps its colour whatever else is filtered out, so that nothing flickers
    while a threshold is dragged: the number comes from its box and area.

    Parameters
    ----------
    masks : MaskSet
        What to paint.
    out : (h, w) uint8 array
        Overwritten with 0 or 1-250.
    """
    out[...] = 0
    if len(masks) == 0:
        return
    areas = masks.areas
    colours = colour_numbers(masks.boxes, areas)
    for index in np.argsort(-areas, kind="stable"):
        crop = masks.crops[index]
        np.copyto(out[crop.slices], colours[index], where=crop.array())


def colour_numbers(boxes: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Derive a lasting colour number, 1-250, from box and area of each mask."""
    mixed = areas.astype(np.uint64)
    for column, factor in zip(
        boxes.T, (2654435761, 2246822519, 3266489917, 668265263), strict=True
    ):
        mixed = (mixed ^ (column.astype(np.uint64) * np.uint64(factor))) * np.uint64(0x9E3779B1)
        mixed ^= mixed >> np.uint64(15)
    return (mixed % np.uint64(_PREVIEW_COLOURS) + np.uint64(1)).astype(np.uint8)


def uncovered(found: FoundCandidates, painted: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Set ``out``, (h, w) uint8, to 1 where objects were looked for and no mask lies."""
    np.equal(painted, 0, out=out.view(np.bool_))
    if found.valid is not None:
        out *= found.valid


def grouped(count: int) -> str:
    """Write a whole number with thin spaces between the thousands."""
    return f"{count:,}".replace(",", "\u202f")


def objects_text(count: int) -> str:
    """Write how many objects: "1 object", "12 objects"."""
    return "1 object" if count == 1 else f"{grouped(count)} objects"


def counts_text(kept: Kept, total: int) -> str:
    """Say how many masks stay and what they cover: "kept 231 of 1 184 · coverage 61 %"."""
    return (
        f"kept {grouped(len(kept.masks))} of {grouped(total)} · "
        f"coverage {100 * kept.coverage:.0f} %"
    )


def dropped_text(dropped: Mapping[str, int]) -> str:
    """Say how many were dropped and why: "96 dropped: 51 score, 30 stability, 15 area"."""
    reasons: dict[str, int] = {}
    for reason, count in dropped.items():
        if count:
            word = _REASONS.get(reason, reason.replace("_", " "))
            reasons[word] = reasons.get(word, 0) + int(count)
    if not reasons:
        return "none dropped"
    words = ", ".join(f"{grouped(count)} {word}" for word, count in reasons.items())
    return f"{grouped(sum(reasons.values()))} dropped: {words}"


def result_text(kept: Kept, seconds: float) -> str:
    """Say the result of a run: "231 masks in 14 s; 96 dropped: 51 score, …"."""
    count = len(kept.masks)
    duration = f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    plural = "mask" if count == 1 else "masks"
    return f"{grouped(count)} {plural} in {duration}; {dropped_text(kept.masks.dropped)}"
