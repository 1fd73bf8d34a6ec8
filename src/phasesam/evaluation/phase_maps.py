"""How well a phase map agrees with the truth: per class, per image and over all images.

What counts where a class is absent (it decides the result when a class is rare):

- Dice and IoU of a class on an image exist only where the truth or the prediction holds it; where
  only the prediction does, they are 0. Absent from both is no success and no failure.
- mIoU and mean Dice of an image are over the classes that the truth holds there.
- "Pooled" figures add up pixels of all images first, so that empty images count by their
  superfluous pixels only.
- "On positive images" is the mean over images whose truth holds the class, and "specificity" the
  share of pixels left free on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.evaluation.statistics import Interval, bootstrap_interval
from phasesam.training.label_values import UNLABELLED

BOUNDARY_WIDTH = 0.02
EMPTY_IMAGES = (
    "Dice and IoU of a class are left out on images where neither truth nor prediction holds it, "
    "and 0 where only the prediction does; means over classes are over those the truth holds."
)
"""The policy on empty images, for reports."""


@dataclass(frozen=True, eq=False)
class PhaseMapScores:
    """One image.

    Attributes
    ----------
    confusion : (K, K + 1) int64 array
        Pixels by true class and predicted class; the last column is "no class".
    boundary_iou : (K,) float64 array
        IoU of the bands along the outlines; NaN where a class is absent from both.
    """

    confusion: NDArray[np.int64]
    boundary_iou: NDArray[np.float64]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.confusion)

    @property
    def n_pixels(self) -> int:
        """Labelled pixels."""
        return int(self.confusion.sum())

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the truth holds each class, (K,)."""
        return np.asarray(self.confusion.sum(axis=1) > 0)

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU per class, (K,)."""
        return _iou(self.confusion)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice per class, (K,)."""
        return _dice(self.confusion)

    @property
    def mean_iou(self) -> float:
        """IoU averaged over the classes that the truth holds (mIoU)."""
        return mean_iou(self.confusion)

    @property
    def mean_dice(self) -> float:
        """Dice averaged over the classes that the truth holds."""
        return _over_present(self.dice, self.present)

    @property
    def mean_boundary_iou(self) -> float:
        """Boundary IoU averaged over the classes that the truth holds."""
        return _over_present(self.boundary_iou, self.present)

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels with the right class; says little when classes are rare."""
        return _ratio(np.trace(self.confusion), self.n_pixels)

    @property
    def specificity(self) -> NDArray[np.float64]:
        """Share of the pixels of other classes that were left free, (K,)."""
        _, surplus, _ = _counts(self.confusion)
        others = self.n_pixels - self.confusion.sum(axis=1)
        return 1 - _divide(surplus, others)

    @property
    def true_fractions(self) -> NDArray[np.float64]:
        """Share of each class among the labelled pixels, (K,)."""
        return _divide(self.confusion.sum(axis=1), np.full(self.n_classes, self.n_pixels))

    @property
    def fraction_errors(self) -> NDArray[np.float64]:
        """Predicted minus true share of each class, (K,)."""
        predicted = self.confusion[:, : self.n_classes].sum(axis=0)
        difference = predicted - self.confusion.sum(axis=1)
        return _divide(difference, np.full(self.n_classes, self.n_pixels))


def confusion_matrix(
    predicted: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], n_classes: int
) -> NDArray[np.int64]:
    """Count labelled pixels by true class and predicted class; as `score_phase_map`.

    Returns
    -------
    (K, K + 1) int64 array
        The last column is "no class".
    """
    _check(predicted, truth, n_classes)
    known = truth != UNLABELLED
    # In place of "no class" the column behind the last one.
    columns = np.where(predicted == UNLABELLED, n_classes, predicted).astype(np.int64)
    cells = truth[known].astype(np.int64) * (n_classes + 1) + columns[known]
    counts = np.bincount(cells, minlength=n_classes * (n_classes + 1))
    return counts.reshape(n_classes, n_classes + 1).astype(np.int64)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """IoU averaged over the classes that the truth holds, of a `confusion_matrix`."""
    return _over_present(_iou(confusion), confusion.sum(axis=1) > 0)


def score_phase_map(
    predicted: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    n_classes: int,
    boundary_width: float = BOUNDARY_WIDTH,
) -> PhaseMapScores:
    """Compare a phase map with the truth.

    Parameters
    ----------
    predicted : (h, w) integer array
        Class of each pixel, 0 to ``n_classes - 1``, or -1 for none.
    truth : (h, w) integer array
        The same; -1 means unlabelled, and such pixels do not count at all.
    n_classes : int
        Number of classes, the background's included.
    boundary_width : float
        Width of the bands of the boundary IoU as a share of the diagonal, at least one pixel. The
        rim of an unlabelled area is no outline.

    Raises
    ------
    InvalidMaskError
        If the shapes differ, a class is out of range or no pixel is labelled.
    """
    confusion = confusion_matrix(predicted, truth, n_classes)
    known = truth != UNLABELLED
    width = max(1, round(boundary_width * math.hypot(*truth.shape)))
    boundary = [_boundary_iou(predicted == c, truth == c, known, width) for c in range(n_classes)]
    return PhaseMapScores(confusion, np.array(boundary))


@dataclass(frozen=True, eq=False)
class PhaseMapSummary:
    """All images of a test set.

    Attributes
    ----------
    scores : tuple of PhaseMapScores
        One per image.
    classes : tuple of str
        Names of the classes.
    names : tuple of str
        Names of the images.
    groups : tuple of str
        What each image belongs to, the unit of intervals: its specimen, or itself.
    """

    scores: tuple[PhaseMapScores, ...]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.scores), len(self.names), len(self.groups)}
        kinds = {s.n_classes for s in self.scores} | {len(self.classes)}
        if len(lengths) != 1 or len(kinds) != 1 or not self.scores:
            raise InvalidSettingError(
                f"expected at least one image of {len(self.classes)} classes with a name and a "
                f"group each, got {len(self.scores)} images, {len(self.names)} names, "
                f"{len(self.groups)} groups and numbers of classes {sorted(kinds)}"
            )

    @property
    def pooled(self) -> NDArray[np.int64]:
        """Confusion of all images together, (K, K + 1)."""
        return np.sum([s.confusion for s in self.scores], axis=0, dtype=np.int64)

    @property
    def pooled_iou(self) -> NDArray[np.float64]:
        """IoU per class from the pixels of all images, (K,)."""
        return _iou(self.pooled)

    @property
    def pooled_dice(self) -> NDArray[np.float64]:
        """Dice per class from the pixels of all images, (K,)."""
        return _dice(self.pooled)

    @property
    def pooled_mean_iou(self) -> float:
        """Pooled IoU averaged over the classes that any truth holds."""
        return mean_iou(self.pooled)

    @property
    def pooled_mean_dice(self) -> float:
        """Pooled Dice averaged over the classes that any truth holds."""
        return _over_present(self.pooled_dice, self.pooled.sum(axis=1) > 0)

    def values(self, figure: Callable[[PhaseMapScores], Any]) -> NDArray[np.float64]:
        """Collect a figure of each image, (n,) or (n, K).

        Parameters
        ----------
        figure : callable
            From the scores of an image to a number or one per class.
        """
        return np.array([figure(s) for s in self.scores], dtype=np.float64)

    def mean(self, figure: Callable[[PhaseMapScores], float], low: float = 0) -> Interval:
        """Mean of a figure over images, with its interval.

        Parameters
        ----------
        figure : callable
            From the scores of an image to a number; NaN leaves the image out.
        low : float
            Smallest possible value; the largest is 1.
        """
        return bootstrap_interval(self.values(figure), self.groups, bounds=(low, 1))

    def per_class(
        self, figure: Callable[[PhaseMapScores], NDArray[np.float64]], low: float = 0
    ) -> tuple[Interval, ...]:
        """Mean of a figure over images for each class; as `mean`."""
        return tuple(
            bootstrap_interval(column, self.groups, bounds=(low, 1))
            for column in self.values(figure).T
        )

    def iou_on_positive_images(self) -> tuple[Interval, ...]:
        """IoU per class, averaged over the images whose truth holds it."""
        return self.per_class(lambda s: np.where(s.present, s.iou, np.nan))

    def specificity_on_empty_images(self) -> tuple[Interval, ...]:
        """Share of pixels left free per class, averaged over images whose truth lacks it."""
        return self.per_class(lambda s: np.where(s.present, np.nan, s.specificity))

    def fraction_bias(self) -> tuple[Interval, ...]:
        """Predicted minus true phase fraction per class, averaged over images."""
        return self.per_class(lambda s: s.fraction_errors, low=-1)

    def fraction_error(self) -> tuple[Interval, ...]:
        """Size of the error of the phase fraction per class, averaged over images."""
        return self.per_class(lambda s: np.abs(s.fraction_errors))

    def worst_fraction_error(self) -> NDArray[np.float64]:
        """Largest error of the phase fraction per class over all images, (K,)."""
        return np.asarray(np.abs(self.values(lambda s: s.fraction_errors)).max(axis=0))


def score_phase_maps(
    predicted: Sequence[NDArray[np.integer[Any]]],
    truth: Sequence[NDArray[np.integer[Any]]],
    classes: int | Sequence[str],
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> PhaseMapSummary:
    """Compare the phase maps of a test set with the truth.

    Parameters
    ----------
    predicted, truth : sequence of (h, w) integer arrays
        As for `score_phase_map`.
    classes : int or sequence of str
        Their number or names.
    names : sequence of str, optional
        Of the images; numbered when left out.
    groups : sequence of str, optional
        Specimen of each image, where several show the same one.

    Raises
    ------
    InvalidMaskError
        As `score_phase_map`; the message names the image.
    InvalidSettingError
        If there is no image, or not as many of one thing as of the other.
    """
    if isinstance(classes, int):
        classes = [str(i) for i in range(classes)]
    labels = [str(i + 1) for i in range(len(truth))] if names is None else list(names)
    if not len(predicted) == len(truth) == len(labels):
        raise InvalidSettingError(
            f"expected a prediction and a truth per image, got {len(predicted)} and {len(truth)} "
            f"for {len(labels)} names"
        )
    scores = []
    for name, found, wanted in zip(labels, predicted, truth, strict=True):
        try:
            scores.append(score_phase_map(found, wanted, len(classes)))
        except InvalidMaskError as error:
            raise InvalidMaskError(f"{name}: {error}") from error
    return PhaseMapSummary(
        tuple(scores), tuple(classes), tuple(labels), tuple(labels if groups is None else groups)
    )


def _check(predicted: NDArray[Any], truth: NDArray[Any], n_classes: int) -> None:
    for what, labels in (("predicted", predicted), ("true", truth)):
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise InvalidMaskError(
                f"expected a {what} phase map (h, w) of integers, got {labels.shape} {labels.dtype}"
            )
        if labels.size and not (labels.min() >= UNLABELLED and labels.max() < n_classes):
            raise InvalidMaskError(
                f"expected {what} classes from 0 to {n_classes - 1} or -1, got {labels.min()} to "
                f"{labels.max()}"
            )
    if predicted.shape != truth.shape:
        raise InvalidMaskError(
            f"expected phase maps of one shape, got {predicted.shape} predicted and {truth.shape} "
            "true"
        )
    if not (truth != UNLABELLED).any():
        raise InvalidMaskError("expected a truth with labelled pixels, got none")


def _boundary_iou(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], known: NDArray[np.bool_], width: int
) -> float:
    """IoU of the bands inside the outlines where the truth is known."""
    bands = [mask & known & ~_eroded(mask | ~known, width) for mask in (predicted, truth)]
    union = np.count_nonzero(bands[0] | bands[1])
    return _ratio(np.count_nonzero(bands[0] & bands[1]), union)


def _eroded(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    size = 2 * width + 1
    smallest = ndimage.minimum_filter(mask.view(np.uint8), size=size, mode="constant", cval=0)
    return np.asarray(smallest).view(np.bool_)


def _counts(
    confusion: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Right, superfluous and missing pixels of each class."""
    n = len(confusion)
    right = np.diagonal(confusion)
    return right, confusion[:, :n].sum(axis=0) - right, confusion.sum(axis=1) - right


def _iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    right, surplus, missing = _counts(confusion)
    return _divide(right, right + surplus + missing)


def _dice(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    right, surplus, missing = _counts(confusion)
    return _divide(2 * right, 2 * right + surplus + missing)


def _divide(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Quotient, NaN over nothing."""
    out = np.full(len(part), np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else math.nan


def _over_present(values: NDArray[np.float64], present: NDArray[Any]) -> float:
    # A class may have a truth but, with few labels, no outline that could be judged.
    judged = values[present & ~np.isnan(values)]
    return float(judged.mean()) if judged.size else math.nan
