"""Phase fractions and boxes that a network is told in training: true, noisy, wrong or missing.

Only a network that was told wrong things learns how far to trust. Each view of an image is told
the amounts of the view or of the whole image, blurred by a standard error that it is told, too.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.core.ratio_hints import completed, noisy_fractions
from phasesam.models.class_decoder import ClassDecoder, ClassHints
from phasesam.training.hint_config import HintTraining

_UNKNOWN = np.nan


def amounts(labels: NDArray[np.integer], n_classes: int) -> NDArray[np.float64]:
    """Fraction of each class, (n_classes,), of what is labelled; NaN if nothing is."""
    counts = np.bincount(labels[labels >= 0].ravel(), minlength=n_classes)[:n_classes]
    total = int(counts.sum())
    return counts / total if total else np.full(n_classes, _UNKNOWN)


def draw_shares(
    true: NDArray[np.float64], config: HintTraining, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw what a network is told of amounts.

    Parameters
    ----------
    true : (k,) array
        True fractions; NaN if they are not known.
    config : HintTraining
        How often what.
    rng : numpy.random.Generator
        Chance.

    Returns
    -------
    shares : (k,) array
        Fractions; NaN where nothing is told.
    errors : (k,) array
        The standard errors that are told.
    """
    count = len(true)
    missing, wrong = rng.random() < config.missing, rng.random() < config.wrong
    each = config.error * rng.random(count)
    # All amounts of an image often come from one method, and are as good as each other.
    errors = np.full(count, each[0]) if rng.random() < 0.5 else each
    errors = np.zeros(count) if rng.random() < config.exact else errors
    hidden = rng.random(count) < rng.random() * (rng.random() < config.unknown)
    anything = rng.dirichlet(np.ones(count))
    if missing or not np.isfinite(true).all():
        return np.full(count, _UNKNOWN), np.zeros(count)
    drawn = anything if wrong else noisy_fractions(true, errors, rng)
    return completed(np.where(hidden, _UNKNOWN, drawn), errors)


def class_boxes(labels: NDArray[np.integer], n_classes: int) -> NDArray[np.float64]:
    """Box around the largest connected region of each class.

    Parameters
    ----------
    labels : (h, w) integer array
        Class of each pixel; negative where unknown.
    n_classes : int
        Classes.

    Returns
    -------
    (n_classes, 4) array
        ``x0, y0, x1, y1`` in pixels, the last included; NaN for classes that do not occur.
    """
    found = np.full((n_classes, 4), np.nan)
    for value in range(n_classes):
        regions, count = ndimage.label(labels == value)
        if not count:
            continue
        largest = int(np.argmax(np.bincount(regions.ravel())[1:]))
        y, x = ndimage.find_objects(regions)[largest]
        found[value] = x.start, y.start, x.stop - 1, y.stop - 1
    return found


def draw_hints(
    labels: NDArray[np.integer],
    whole: NDArray[np.float64],
    config: HintTraining,
    rng: np.random.Generator,
    head: ClassDecoder,
) -> ClassHints:
    """Draw what is told of one view.

    Parameters
    ----------
    labels : (h, w) integer array
        Of the view.
    whole : (k,) array
        Amounts of the whole image.
    config : HintTraining
        How often what.
    rng : numpy.random.Generator
        Chance.
    head : ClassDecoder
        What takes them. Boxes are told for half of the views: of all classes, or of half of them.

    Returns
    -------
    ClassHints
        Of a batch of one.
    """
    count = len(whole)
    own = rng.random() >= config.whole
    shares, errors = draw_shares(amounts(labels, count) if own else whole, config, rng)
    # Often all of them, as they are given in use.
    shown = (rng.random() < 0.5) & ((rng.random(count) < 0.5) | (rng.random() < 0.5))
    found = None
    if head.boxes is not None:
        found = _tensor(np.where(shown[:, None], class_boxes(labels, count), np.nan))
    if head.ratio is None:
        return ClassHints(boxes=found)
    return ClassHints(_tensor(shares), _tensor(errors), found)


def stacked(hints: list[ClassHints]) -> ClassHints:
    """Join batches."""
    parts = [[getattr(one, name) for one in hints] for name in ("shares", "errors", "boxes")]
    return ClassHints(*(None if part[0] is None else torch.cat(part) for part in parts))


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))[None]
