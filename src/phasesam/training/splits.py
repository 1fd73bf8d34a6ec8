"""Divide images into training, validation and test, never a specimen among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.training.data_tables import TEST, TRAIN, VAL

SPLITS = (TRAIN, VAL, TEST)


def assign_splits(
    specimens: Sequence[str], fractions: tuple[float, float, float] = (0.7, 0.2, 0.1), seed: int = 0
) -> list[str]:
    """Assign every image to a split; images of one specimen stay together.

    Parameters
    ----------
    specimens : sequence of str
        Specimen of each image.
    fractions : (float, float, float)
        Wanted shares of images for training, validation and test; scaled to a sum of 1.
    seed : int
        Equal seeds give equal splits, in whatever order the images come.

    Returns
    -------
    list of str
        ``"train"``, ``"val"`` or ``"test"`` of each image. Training comes first: the
        validation gets a specimen when there are two, the test when there are three.

    Raises
    ------
    InvalidSettingError
        If the fractions are negative or leave nothing for training.
    """
    shares = _shares(fractions)
    sizes = Counter(specimens)
    names = sorted(sizes)
    order = np.random.default_rng(seed).permutation(len(names))
    # Large specimens first: small ones can still even out what they upset.
    shuffled = sorted((names[i] for i in order), key=lambda name: -sizes[name])
    wanted = shares * len(specimens)
    groups: list[list[str]] = [[], [], []]
    for name in shuffled:
        # A share of 0 stays empty even when rounding leaves something over.
        lacks = [
            wanted[i] - sum(sizes[n] for n in groups[i]) if shares[i] > 0 else -np.inf
            for i in range(3)
        ]
        groups[int(np.argmax(lacks))].append(name)
    _fill_empty(groups, [i for i in range(3) if shares[i] > 0][: len(names)], sizes)
    split_of = {name: SPLITS[i] for i, group in enumerate(groups) for name in group}
    return [split_of[name] for name in specimens]


def divide_lone_specimen(n_images: int, fractions: tuple[float, float, float]) -> list[str]:
    """Divide the images of the only specimen, in their order, into training and validation.

    Neighbouring planes of a stack are alike, so that the validation takes one end in a
    row rather than planes in between. There is no test: it would be on the same specimen.

    Parameters
    ----------
    n_images : int
        How many.
    fractions : (float, float, float)
        See `assign_splits`.

    Returns
    -------
    list of str
        ``"train"`` or ``"val"`` of each image.
    """
    shares = _shares(fractions)
    if shares[1] == 0 or n_images < 2:
        return [TRAIN] * n_images
    n_val = round(n_images * shares[1] / (shares[0] + shares[1]))
    n_val = min(max(1, n_val), n_images - 1)
    return [TRAIN] * (n_images - n_val) + [VAL] * n_val


def _shares(fractions: tuple[float, float, float]) -> NDArray[np.float64]:
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or shares.min() < 0 or shares[0] == 0:
        raise InvalidSettingError(
            "expected shares of training, validation and test, the first above 0 and none "
            f"below, got {fractions}"
        )
    return shares / shares.sum()


def _fill_empty(groups: list[list[str]], needed: Sequence[int], sizes: Counter[str]) -> None:
    """Give every needed split at least one specimen, the smallest of the largest split."""
    for index in needed:
        if groups[index]:
            continue
        donors = [g for i, g in enumerate(groups) if len(g) > 1 or (g and i not in needed)]
        donor = max(donors, key=lambda group: sum(sizes[name] for name in group))
        name = min(donor, key=lambda name: sizes[name])
        donor.remove(name)
        groups[index].append(name)
