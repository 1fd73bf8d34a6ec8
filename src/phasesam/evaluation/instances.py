"""How well single objects are found: per image and over all images of a test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import (
    InstanceOverlap,
    InstanceScores,
    average_precision,
    score_instances,
)
from phasesam.core.size_distribution import size_distribution
from phasesam.evaluation.statistics import Interval, bootstrap_interval

Objects = NDArray[Any] | MaskSet
"""A label image (h, w), 0 background, or a set of (possibly overlapping) masks."""

NOTHING_TO_FIND = (
    "An image without true objects scores 1 if nothing was found and 0 otherwise in SA, mSA and "
    "PQ; it has no AP, no count error and no D50 error of its own."
)
"""The policy on empty images, for reports."""


@dataclass(frozen=True, eq=False)
class ImageInstances:
    """One image.

    Attributes
    ----------
    scores : InstanceScores
        All figures of merit of the image.
    overlap : InstanceOverlap
        What shares pixels with what, for figures over several images.
    confidences : (p,) float64 array or None
        Score of each prediction; None where they are unknown.
    """

    scores: InstanceScores
    overlap: InstanceOverlap
    confidences: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class InstanceSummary:
    """All images of a test set.

    Attributes
    ----------
    images : tuple of ImageInstances
        One per image.
    names : tuple of str
        Names of the images.
    groups : tuple of str
        What each image belongs to, the unit of intervals: its specimen, or itself.
    """

    images: tuple[ImageInstances, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.images or not len(self.images) == len(self.names) == len(self.groups):
            raise InvalidSettingError(
                f"expected at least one image with a name and a group each, got "
                f"{len(self.images)} images, {len(self.names)} names, {len(self.groups)} groups"
            )

    def values(self, figure: Callable[[InstanceScores], float]) -> NDArray[np.float64]:
        """Collect a figure of each image, (n,)."""
        return np.array([figure(image.scores) for image in self.images], dtype=np.float64)

    def mean(
        self,
        figure: Callable[[InstanceScores], float],
        bounds: tuple[float, float] = (0, 1),
    ) -> Interval:
        """Mean of a figure over images, with its interval.

        Parameters
        ----------
        figure : callable
            From the scores of an image to a number; NaN leaves the image out.
        bounds : (float, float)
            What the figure can be at all.
        """
        return bootstrap_interval(self.values(figure), self.groups, bounds=bounds)

    def average_precision(self, threshold: float = 0.5) -> float:
        """COCO's average precision over all objects of all images; NaN without scores."""
        confidences = [image.confidences for image in self.images]
        if any(c is None for c in confidences):
            return math.nan
        known = [c for c in confidences if c is not None]
        return average_precision([image.overlap for image in self.images], known, threshold)

    def panoptic_quality(self) -> float:
        """PQ with the objects of all images counted together."""
        total, hits, wrong = 0.0, 0, 0
        for image in self.images:
            found, false, missed = image.overlap.counts(0.5)
            _, quality, _ = image.overlap.panoptic_quality()
            total += quality * found
            hits, wrong = hits + found, wrong + false + missed
        return total / (hits + 0.5 * wrong) if hits + wrong else 1.0

    def count_error(self) -> float:
        """Relative error of the number of objects in all images; NaN where there are none."""
        predicted = sum(image.scores.n_predicted for image in self.images)
        true = sum(image.scores.n_true for image in self.images)
        return (predicted - true) / true if true else math.nan

    def diameters(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """D10, D50, D90 in pixels of all predicted and of all true objects, by number."""
        predicted = np.concatenate([_counted_areas(image.overlap) for image in self.images])
        true = np.concatenate([image.overlap.true_areas for image in self.images])
        return _quantiles(predicted), _quantiles(true)

    def d50_error(self) -> float:
        """Relative error of the median diameter of all objects."""
        predicted, true = self.diameters()
        return (predicted[1] - true[1]) / true[1]


def score_instance_sets(
    predicted: Sequence[Objects],
    truth: Sequence[Objects],
    confidences: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> InstanceSummary:
    """Compare the objects found in the images of a test set with the true ones.

    Parameters
    ----------
    predicted, truth : sequence of (h, w) integer arrays or MaskSets
        Objects of each image. Negative labels of the truth are unlabelled: true objects are not
        cut by them, and predictions that lie there for the most part do not count as false.
    confidences : sequence of (p,) array-like or None, optional
        Score of each prediction (ascending labels for a label image), for the average
        precision; those of mask sets are used when left out and known.
    names : sequence of str, optional
        Of the images; numbered when left out.
    groups : sequence of str, optional
        Specimen of each image, where several show the same one.

    Raises
    ------
    InvalidMaskError
        If the objects of an image have different shapes; the message names it.
    InvalidSettingError
        If there is no image, or not as many of one thing as of the other.
    """
    labels = [str(i + 1) for i in range(len(truth))] if names is None else list(names)
    given = [None] * len(labels) if confidences is None else list(confidences)
    if not len(predicted) == len(truth) == len(labels) == len(given):
        raise InvalidSettingError(
            f"expected predictions, truth and scores per image, got {len(predicted)}, "
            f"{len(truth)} and {len(given)} for {len(labels)} names"
        )
    images = []
    for name, found, wanted, values in zip(labels, predicted, truth, given, strict=True):
        try:
            images.append(score_image(found, wanted, values))
        except InvalidMaskError as error:
            raise InvalidMaskError(f"{name}: {error}") from error
    return InstanceSummary(
        tuple(images), tuple(labels), tuple(labels if groups is None else groups)
    )


def score_image(predicted: Objects, truth: Objects, confidences: Any = None) -> ImageInstances:
    """Compare the objects found in one image with the true ones; as `score_instance_sets`.

    Parameters
    ----------
    predicted, truth : (h, w) integer array or MaskSet
        Objects; negative labels of the truth are unlabelled.
    confidences : (p,) array-like, optional
        Score of each prediction.

    Raises
    ------
    InvalidMaskError
        If the shapes differ.
    """
    found = predicted if isinstance(predicted, MaskSet) else MaskSet.from_labels(predicted)
    ignore = None
    if not isinstance(truth, MaskSet):
        truth = np.asarray(truth)
        ignore = truth < 0 if truth.dtype.kind == "i" and (truth < 0).any() else None
        truth = MaskSet.from_labels(truth if ignore is None else np.where(ignore, 0, truth))
    if confidences is None and len(found) and np.isfinite(found.scores).all():
        confidences = found.scores
    if confidences is None and not len(found):
        # No prediction needs no score.
        confidences = np.zeros(0)
    known = None if confidences is None else np.asarray(confidences, np.float64).reshape(-1)
    return ImageInstances(
        score_instances(found, truth, known, ignore),
        InstanceOverlap.between(found, truth, ignore),
        known,
    )


def _counted_areas(overlap: InstanceOverlap) -> NDArray[np.int64]:
    """Areas of the predictions that are right or wrong, not ignored."""
    counted = ~overlap.ignorable
    counted[overlap.match(0.5)[0]] = True
    return overlap.predicted_areas[counted]


def _quantiles(areas: NDArray[np.int64]) -> tuple[float, float, float]:
    sizes = size_distribution(np.sqrt(4 * areas[areas > 0] / np.pi))
    return sizes.d10, sizes.d50, sizes.d90
