"""How well a segmentation agrees with the truth: pixels, outlines and single objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.optimize import linear_sum_assignment

from phasesam.core.errors import InvalidMaskError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.overlaps import overlap_matrix
from phasesam.core.size_distribution import size_distribution

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""IoU 0.50, 0.55, ... 0.95."""

_TOLERANCE = 1e-9


def iou(predicted: ArrayLike, true: ArrayLike) -> float:
    """Intersection over union of two masks.

    Parameters
    ----------
    predicted, true : array-like
        Masks of equal shape; what is not zero is inside.

    Returns
    -------
    float
        0–1; 1 when both masks are empty.
    """
    a, b = _pair(predicted, true)
    union = int(np.count_nonzero(a | b))
    return float(np.count_nonzero(a & b)) / union if union else 1.0


def dice(predicted: ArrayLike, true: ArrayLike) -> float:
    """Twice the intersection of two masks over the sum of their areas.

    Parameters
    ----------
    predicted, true : array-like
        Masks of equal shape; what is not zero is inside.

    Returns
    -------
    float
        0–1; 1 when both masks are empty.
    """
    a, b = _pair(predicted, true)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * float(np.count_nonzero(a & b)) / total if total else 1.0


def boundary_iou(predicted: ArrayLike, true: ArrayLike, width: float = 0.02) -> float:
    """IoU of the bands of pixels inside the two outlines.

    Parameters
    ----------
    predicted, true : (h, w) array-like
        Masks of equal shape.
    width : float
        Width of the band as a share of the image diagonal; at least one pixel.

    Returns
    -------
    float
        0–1; 1 when both masks are empty.

    References
    ----------
    .. [1] B. Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
       Evaluation", CVPR 2021.
    """
    a, b = _pair(predicted, true)
    distance = max(1, round(width * float(np.hypot(*a.shape))))
    bands = [mask & ~_eroded(mask, distance) for mask in (a, b)]
    return iou(bands[0], bands[1])


def _eroded(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels whose square neighbourhood of this radius lies in the mask and in the image."""
    return ndimage.minimum_filter(
        mask.astype(np.uint8), size=2 * distance + 1, mode="constant", cval=0
    ).astype(np.bool_)


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(predicted) != 0, np.asarray(true) != 0
    if a.shape != b.shape:
        raise InvalidMaskError(f"expected two masks of one shape, got {a.shape} and {b.shape}")
    return a, b


@dataclass(frozen=True, eq=False)
class InstanceOverlap:
    """IoU of every predicted with every true object of one image.

    Attributes
    ----------
    iou : (p, t) scipy.sparse.csr_matrix of float64
        Pairs that share a pixel.
    predicted_areas, true_areas : (p,) and (t,) int64 array
        Pixels.
    ignorable : (p,) bool array
        Predictions that do not count as false when they match nothing.
    """

    iou: sparse.csr_matrix
    predicted_areas: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    ignorable: NDArray[np.bool_]

    @classmethod
    def between(
        cls,
        predicted: NDArray[Any] | MaskSet,
        true: NDArray[Any] | MaskSet,
        ignore: NDArray[np.bool_] | None = None,
    ) -> InstanceOverlap:
        """Compare two label images or sets of (possibly overlapping) masks.

        Parameters
        ----------
        predicted, true : (h, w) integer array or MaskSet
            Objects of one image; label 0 is background.
        ignore : (h, w) bool array, optional
            Where the truth is unknown or does not count. True objects with at least half
            of their pixels there are left out. Predictions with at least half of their
            pixels there are not held against the result when they match nothing.

        Raises
        ------
        InvalidMaskError
            If the shapes differ.
        """
        sets = [m if isinstance(m, MaskSet) else MaskSet.from_labels(m) for m in (predicted, true)]
        if tuple(sets[0].shape) != tuple(sets[1].shape):
            raise InvalidMaskError(
                f"expected objects of one image shape, got {sets[0].shape} and {sets[1].shape}"
            )
        found, wanted = sets[0].crops, sets[1].crops
        hidden = np.zeros(len(found), dtype=np.bool_)
        if ignore is not None:
            ignore, _ = _pair(ignore, np.zeros(sets[0].shape))
            hidden = np.array([_mostly_in(crop, ignore) for crop in found], dtype=np.bool_)
            wanted = tuple(crop for crop in wanted if not _mostly_in(crop, ignore))
        shared = overlap_matrix([*found, *wanted])[: len(found), len(found) :].tocoo()
        areas = (
            np.array([c.area for c in found], np.int64),
            np.array([c.area for c in wanted], np.int64),
        )
        union = areas[0][shared.row] + areas[1][shared.col] - shared.data
        ratio = (shared.data / union, (shared.row, shared.col))
        return cls(sparse.csr_matrix(ratio, shape=shared.shape), *areas, hidden)

    def match(self, threshold: float = 0.5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pair predictions with true objects one to one.

        As many pairs of at least this IoU as possible are made; among these choices, the
        one with the largest sum of IoUs.

        Returns
        -------
        (k,) int64 array, (k,) int64 array
            Indices of the predictions, ascending, and of their true objects.
        """
        pairs = self.iou.tocoo()
        good = pairs.data >= threshold - _TOLERANCE
        row, column, value = pairs.row[good], pairs.col[good], pairs.data[good]
        # Where both have no other partner there is nothing to decide.
        single = (np.bincount(row, minlength=pairs.shape[0])[row] == 1) & (
            np.bincount(column, minlength=pairs.shape[1])[column] == 1
        )
        rows, columns = [row[single]], [column[single]]
        row, column, value = row[~single], column[~single], value[~single]
        if len(row):
            some_rows, y = np.unique(row, return_inverse=True)
            some_columns, x = np.unique(column, return_inverse=True)
            gain = np.zeros((len(some_rows), len(some_columns)))
            gain[y, x] = value + min(gain.shape)
            y, x = linear_sum_assignment(gain, maximize=True)
            real = gain[y, x] > 0
            rows.append(some_rows[y[real]])
            columns.append(some_columns[x[real]])
        first, second = np.concatenate(rows), np.concatenate(columns)
        order = np.argsort(first, kind="stable")
        return first[order].astype(np.int64), second[order].astype(np.int64)

    def counts(self, threshold: float = 0.5) -> tuple[int, int, int]:
        """Count true positives, false positives and false negatives at one IoU."""
        matched, _ = self.match(threshold)
        unmatched = np.ones(len(self.predicted_areas), dtype=np.bool_)
        unmatched[matched] = False
        false = int(np.count_nonzero(unmatched & ~self.ignorable))
        return len(matched), false, len(self.true_areas) - len(matched)

    def segmentation_accuracy(self, threshold: float = 0.5) -> float:
        """TP / (TP + FP + FN); 1 when there is nothing to find and nothing was found."""
        hits, false, missed = self.counts(threshold)
        return hits / (hits + false + missed) if hits + false + missed else 1.0

    def panoptic_quality(self) -> tuple[float, float, float]:
        """PQ, its segmentation quality and its recognition quality, at IoU 0.5."""
        hits, false, missed = self.counts(0.5)
        if hits + false + missed == 0:
            return 1.0, 1.0, 1.0
        rows, columns = self.match(0.5)
        quality = float(np.asarray(self.iou[rows, columns]).sum()) / hits if hits else 0.0
        recognition = hits / (hits + 0.5 * (false + missed))
        return quality * recognition, quality, recognition


def _mostly_in(crop: MaskCrop, region: NDArray[np.bool_]) -> bool:
    return 2 * int(np.count_nonzero(region[crop.slices] & crop.array())) >= max(crop.area, 1)


def segmentation_accuracy(
    predicted: NDArray[Any] | MaskSet,
    true: NDArray[Any] | MaskSet,
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    ignore: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Segmentation accuracy TP / (TP + FP + FN) at several IoU thresholds.

    Parameters
    ----------
    predicted, true : (h, w) integer array or MaskSet
        Objects of one image.
    thresholds : sequence of float
        A pair matches when its IoU is at least this; 0.50, 0.55, ... 0.95 when left out.
        Their mean is then mSA.
    ignore : (h, w) bool array, optional
        See `InstanceOverlap.between`.

    Returns
    -------
    (k,) float64 array
        One value per threshold, 0–1.
    """
    overlap = InstanceOverlap.between(predicted, true, ignore)
    return np.array([overlap.segmentation_accuracy(t) for t in thresholds])


def average_precision(
    overlaps: Sequence[InstanceOverlap], scores: Sequence[ArrayLike], threshold: float = 0.5
) -> float:
    """COCO's average precision over all images, interpolated at 101 recalls.

    Predictions are taken best first; each takes the true object with the highest IoU that
    is still free.

    Parameters
    ----------
    overlaps : sequence of InstanceOverlap
        One per image.
    scores : sequence of (p,) array-like
        Score of every prediction of each image.
    threshold : float
        A pair matches when its IoU is at least this.

    Returns
    -------
    float
        0–1; NaN when no image holds a true object.

    Raises
    ------
    InvalidMaskError
        If there is not one score per prediction.

    References
    ----------
    .. [1] pycocotools.cocoeval, https://github.com/cocodataset/cocoapi
    """
    n_true = sum(len(overlap.true_areas) for overlap in overlaps)
    if n_true == 0:
        return float("nan")
    all_scores, all_hits = [np.zeros(0)], [np.zeros(0, np.bool_)]
    for overlap, image_scores in zip(overlaps, scores, strict=True):
        score = np.asarray(image_scores, dtype=np.float64).reshape(-1)
        if len(score) != len(overlap.predicted_areas):
            raise InvalidMaskError(
                f"expected {len(overlap.predicted_areas)} scores, got {len(score)}"
            )
        hits = _hits(overlap, score, threshold)
        counted = hits | ~overlap.ignorable
        all_scores.append(score[counted])
        all_hits.append(hits[counted])
    score, hit = np.concatenate(all_scores), np.concatenate(all_hits)
    hit = hit[np.argsort(-score, kind="stable")]
    true_positives = np.cumsum(hit)
    recall = true_positives / n_true
    precision = true_positives / np.arange(1, len(hit) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, np.linspace(0, 1, 101), side="left")].mean())


def _hits(
    overlap: InstanceOverlap, scores: NDArray[np.float64], threshold: float
) -> NDArray[np.bool_]:
    """Which predictions find a true object when they choose one after the other."""
    taken = np.zeros(len(overlap.true_areas), dtype=np.bool_)
    hits = np.zeros(len(scores), dtype=np.bool_)
    matrix = overlap.iou
    for index in np.argsort(-scores, kind="stable").tolist():
        part = slice(matrix.indptr[index], matrix.indptr[index + 1])
        columns, values = matrix.indices[part], matrix.data[part]
        free = ~taken[columns] & (values >= threshold - _TOLERANCE)
        if free.any():
            taken[columns[free][int(np.argmax(values[free]))]] = True
            hits[index] = True
    return hits


@dataclass(frozen=True)
class InstanceScores:
    """Figures of merit of one image.

    Attributes
    ----------
    sa50, sa75, msa : float
        Segmentation accuracy at IoU 0.50 and 0.75, and its mean over 0.50, 0.55, ... 0.95.
    ap50 : float
        Average precision at IoU 0.50; NaN without scores.
    panoptic_quality : float
        PQ at IoU 0.5.
    n_predicted, n_true : int
        Numbers of objects, without ignored ones.
    count_error : float
        (predicted - true) / true; NaN when there is none.
    d50_error : float
        The same for the median equivalent diameter.
    """

    sa50: float
    sa75: float
    msa: float
    ap50: float
    panoptic_quality: float
    n_predicted: int
    n_true: int
    count_error: float
    d50_error: float


def score_instances(
    predicted: NDArray[Any] | MaskSet,
    true: NDArray[Any] | MaskSet,
    scores: ArrayLike | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> InstanceScores:
    """Compute all figures of merit of one image.

    Parameters
    ----------
    predicted, true : (h, w) integer array or MaskSet
        Objects of one image.
    scores : (p,) array-like, optional
        Score per prediction (ascending labels for a label image); those of a mask set are
        used when left out and known.
    ignore : (h, w) bool array, optional
        See `InstanceOverlap.between`.

    Returns
    -------
    InstanceScores
        Errors are relative; the average precision is NaN without scores.
    """
    overlap = InstanceOverlap.between(predicted, true, ignore)
    accuracy = [overlap.segmentation_accuracy(t) for t in COCO_THRESHOLDS]
    if scores is None and isinstance(predicted, MaskSet) and np.isfinite(predicted.scores).all():
        scores = predicted.scores
    counted = ~overlap.ignorable
    counted[overlap.match(0.5)[0]] = True
    n_predicted, n_true = int(np.count_nonzero(counted)), len(overlap.true_areas)
    sizes = [_median_diameter(a) for a in (overlap.predicted_areas[counted], overlap.true_areas)]
    return InstanceScores(
        sa50=accuracy[0],
        sa75=accuracy[5],
        msa=float(np.mean(accuracy)),
        ap50=float("nan") if scores is None else average_precision([overlap], [scores]),
        panoptic_quality=overlap.panoptic_quality()[0],
        n_predicted=n_predicted,
        n_true=n_true,
        count_error=(n_predicted - n_true) / n_true if n_true else float("nan"),
        d50_error=(sizes[0] - sizes[1]) / sizes[1],
    )


def _median_diameter(areas: NDArray[np.int64]) -> float:
    return size_distribution(np.sqrt(4 * areas[areas > 0] / np.pi)).d50
