"""Groups of alike tokens, with the same number from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans, vq
from scipy.optimize import linear_sum_assignment

_TRIES = 5


def group_centres(scores: NDArray[np.floating], n: int) -> NDArray[np.float32]:
    """Find the centres of groups of tokens by k-means.

    Parameters
    ----------
    scores : (m, d) float array
        Of the tokens, each direction scaled by how much it counts.
    n : int
        Groups; fewer are found where there are fewer different tokens.

    Returns
    -------
    (k, d) float32 array
        The best of some tries, always the same for the same tokens.
    """
    values = np.asarray(scores, np.float32)
    most = min(n, len(np.unique(values, axis=0)))
    centres, _ = kmeans(values, most, iter=_TRIES, rng=np.random.default_rng(0))
    found: NDArray[np.float32] = centres.astype(np.float32)
    return found


def nearest_group(scores: NDArray[np.floating], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index of the nearest centre (k, d) of tokens (..., d)."""
    flat = np.asarray(scores, np.float32).reshape(-1, scores.shape[-1])
    index, _ = vq(flat, centres, check_finite=False)
    return index.astype(np.intp).reshape(scores.shape[:-1])


def followed_groups(
    groups: Sequence[NDArray[np.intp]], n: int, classes: NDArray[np.integer] | None = None
) -> list[NDArray[np.intp]]:
    """Give the groups of each layer numbers such that most tokens keep theirs.

    Parameters
    ----------
    groups : sequence of (m,) integer array
        Group of the same tokens in each layer, from 0.
    n : int
        Groups at most.
    classes : (m,) integer array, optional
        Class of each token, negative where unknown.

    Returns
    -------
    list of (n,) integer array
        New number by old number. In the last layer the largest group is 0; with classes, groups
        have the numbers of the classes that they fit best. From there backwards as many tokens
        as can be have the number that they have in the layer after
        (Kuhn, Naval Research Logistics 2, 1955).
    """
    numbers = [_first_numbers(groups[-1], n, classes)]
    after = numbers[0][groups[-1]]
    most = int(numbers[0].max()) + 1
    for own in reversed(groups[:-1]):
        common = np.bincount(own * most + after, minlength=n * most).reshape(n, most)
        _, number = linear_sum_assignment(common, maximize=True)
        numbers.append(number)
        after = number[own]
    return numbers[::-1]


def _first_numbers(
    groups: NDArray[np.intp], n: int, classes: NDArray[np.integer] | None
) -> NDArray[np.intp]:
    sizes = np.bincount(groups, minlength=n)
    order = np.argsort(-sizes, kind="stable")
    numbers = np.full(n, -1, np.intp)
    if classes is not None and (classes >= 0).any():
        known = classes >= 0
        n_classes = int(classes.max()) + 1
        places = groups[known] * n_classes + classes[known]
        common = np.bincount(places, minlength=n * n_classes).reshape(n, n_classes)
        fitting, found = linear_sum_assignment(common, maximize=True)
        # A class that a group has nothing of says nothing about it.
        some = common[fitting, found] > 0
        numbers[fitting[some]] = found[some]
    free = iter(np.setdiff1d(np.arange(2 * n), numbers))
    for group in order:
        if numbers[group] < 0:
            numbers[group] = next(free)
    return numbers
