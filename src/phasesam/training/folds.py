"""Cross-validation by specimen: every image is tested once, never with its own specimen learnt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from phasesam.core.errors import InvalidSettingError
from phasesam.training.data_tables import TEST, TRAIN
from phasesam.training.dataset import TrainingData
from phasesam.training.splits import assign_splits


def specimen_folds(
    data: TrainingData,
    count: int,
    seed: int = 0,
    validation: float = 0.2,
    most: int | None = None,
) -> list[TrainingData]:
    """Divide the images anew, `count` times.

    Parameters
    ----------
    data : TrainingData
        Its own splits are not looked at.
    count : int
        Folds; each specimen is in the test of one of them.
    seed : int
        Equal seeds give equal folds.
    validation : float
        Share of the images that are not tested which validate, 0–1.
    most : int, optional
        Images that each fold learns from at most, specimens in turn; the others are left out
        of it.

    Returns
    -------
    list of TrainingData
        The same images with other splits.

    Raises
    ------
    InvalidSettingError
        If there are fewer specimens than folds, or too few to train, validate and test.
    """
    if most is not None and most < 1:
        raise InvalidSettingError(f"expected at least 1 image to learn from, got {most}")
    sizes = Counter(image.specimen for image in data.images)
    if count < 2 or len(sizes) < max(count, 3):
        raise InvalidSettingError(
            f"expected at least 2 folds, and at least 3 specimens and as many as folds, got "
            f"{count} folds of {len(sizes)} specimens"
        )
    names = sorted(sizes)
    order = np.random.default_rng(seed).permutation(len(names))
    held, fold_of = [0] * count, dict[str, int]()
    # Large specimens first, each to the fold that has fewest images.
    for name in sorted((names[i] for i in order), key=lambda name: -sizes[name]):
        fold = int(np.argmin(held))
        fold_of[name] = fold
        held[fold] += sizes[name]
    if min(len(names) - list(fold_of.values()).count(fold) for fold in range(count)) < 2:
        raise InvalidSettingError(
            f"{len(names)} specimens in {count} folds leave some fold without one to validate on: "
            "take more folds, or more specimens"
        )
    folds = [_fold(data, fold_of, fold, (1 - validation, validation, 0.0), seed)
             for fold in range(count)]  # fmt: skip
    return folds if most is None else [_handful(fold, most, seed) for fold in folds]


def _fold(
    data: TrainingData,
    fold_of: dict[str, int],
    fold: int,
    fractions: tuple[float, float, float],
    seed: int,
) -> TrainingData:
    rest = [image.specimen for image in data.images if fold_of[image.specimen] != fold]
    split_of = dict(zip(rest, assign_splits(rest, fractions, seed), strict=True))
    return replace(
        data,
        images=tuple(
            replace(image, split=split_of.get(image.specimen, TEST)) for image in data.images
        ),
    )


def _handful(fold: TrainingData, most: int, seed: int) -> TrainingData:
    """Keep some of the training images."""
    images = sorted(fold.of(TRAIN), key=lambda image: image.name)
    turns: Counter[str] = Counter()
    order: list[tuple[int, int, str]] = []
    for i in np.random.default_rng(seed).permutation(len(images)):
        specimen = images[i].specimen
        order.append((turns[specimen], len(order), images[i].name))
        turns[specimen] += 1
    kept = {name for *_, name in sorted(order)[:most]}
    return replace(
        fold,
        images=tuple(i for i in fold.images if i.split != TRAIN or i.name in kept),
    )
