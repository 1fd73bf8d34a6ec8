"""Figures of a layer: how alike two models see, and how well classes can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_moments import Moments

FOLDS = 5
_ENOUGH = 0.95


def linear_cka(first: ArrayLike, second: ArrayLike) -> float:
    """Centred kernel alignment of two sets of features with a linear kernel.

    Parameters
    ----------
    first, second : (n, c) and (n, d) array
        Features of the same tokens.

    Returns
    -------
    float
        1 where they are alike up to a turn and a scale, 0 where they have nothing in common;
        NaN where one of them does not vary. After Kornblith et al., "Similarity of neural network
        representations revisited" (ICML 2019).
    """
    return Moments.of([first, second]).cka


def relative_change(base: ArrayLike, adapted: ArrayLike) -> float:
    """Mean length of what an adapter adds to tokens (n, c), over that of the tokens."""
    before = np.asarray(base, np.float32)
    added = np.linalg.norm(np.asarray(adapted, np.float32) - before, axis=1)
    lengths = np.linalg.norm(before, axis=1)
    return float(added.mean() / max(float(lengths.mean()), np.finfo(np.float32).tiny))


def fisher_ratios(tokens: ArrayLike, labels: NDArray[np.integer], n: int) -> NDArray[np.float64]:
    """How far each class is from the others, for how much both vary.

    Parameters
    ----------
    tokens : (m, c) array
        Features.
    labels : (m,) integer array
        Class of each token; negative where unknown.
    n : int
        Classes.

    Returns
    -------
    (n,) float64 array
        Trace of the scatter between a class and all others, over that within them; NaN where
        there is only one of the two.
    """
    known = labels >= 0
    x, y = np.asarray(tokens, np.float32)[known], labels[known]
    ratios = np.full(n, np.nan)
    if not len(x):
        return ratios
    x = x - x.mean(axis=0)
    total = float(np.square(x, dtype=np.float64).sum())
    whole = x.sum(axis=0, dtype=np.float64)
    for k in range(n):
        inside = y == k
        count, rest = int(inside.sum()), int(len(x) - inside.sum())
        if not count or not rest:
            continue
        own = x[inside].sum(axis=0, dtype=np.float64)
        gap = own / count - (whole - own) / rest
        between = count * rest / (count + rest) * float(gap @ gap)
        within = total - between - float(whole @ whole) / len(x)
        if within > 0 or between > 0:
            ratios[k] = between / within if within > 0 else np.inf
    return ratios


def probe_iou(
    tokens: Sequence[ArrayLike], labels: Sequence[NDArray[np.integer]], ridge: float = 1e-2
) -> NDArray[np.float64]:
    """IoU of classes that a linear map of the features finds in pictures it was not fitted to.

    Parameters
    ----------
    tokens : sequence of (m, c) array
        Features of each picture, or of each part of one.
    labels : sequence of (m,) integer array
        Class of each token; negative where unknown.
    ridge : float
        Of the mean variance of a channel: how much large weights cost.

    Returns
    -------
    (n,) float64 array
        By class, of the tokens of all pictures; NaN for a class that neither occurs nor is found.

    Raises
    ------
    InvalidSettingError
        If there are fewer than two pictures or parts, or no token is known.

    Notes
    -----
    Ridge regression onto one number per class, in closed form: each of at most five folds is
    judged by what the others teach. Whole pictures are left out, for neighbours are alike.
    """
    known = [np.asarray(each) >= 0 for each in labels]
    n = max((int(np.max(each, initial=-1)) for each in labels), default=-1) + 1
    if len(tokens) < 2 or n < 1:
        raise InvalidSettingError(
            f"a probe needs labels in two pictures or parts of one, got {len(tokens)} and {n} "
            "classes"
        )
    x = [np.asarray(t, np.float32)[k] for t, k in zip(tokens, known, strict=True)]
    y = [np.asarray(each)[k] for each, k in zip(labels, known, strict=True)]
    centre = np.concatenate(x).mean(axis=0, dtype=np.float64).astype(np.float32)
    folds = [
        (np.concatenate(x[start::FOLDS]) - centre, np.concatenate(y[start::FOLDS]))
        for start in range(min(FOLDS, len(x)))
    ]
    moments = [_moments(a, b, n) for a, b in folds]
    gram = sum(m[0] for m in moments)
    aims = sum(m[1] for m in moments)
    confusion = np.zeros((n, n), np.int64)
    for (a, b), (own_gram, own_aims) in zip(folds, moments, strict=True):
        weights = _ridge_weights(gram - own_gram, aims - own_aims, ridge)
        found = (a @ weights[:-1] + weights[-1]).argmax(axis=1)
        confusion += np.bincount(b * n + found, minlength=n * n).reshape(n, n)
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def earliest_useful(scores: Sequence[float]) -> int | None:
    """First layer from which on the base model tells the classes nearly as well as it ever does.

    Parameters
    ----------
    scores : sequence of float
        Mean IoU of the probe by layer, in the order of computing.

    Returns
    -------
    int or None
        Index of the first layer that has, like all after it, 95 % of the best score: layers
        before it still gather what classes are told by. None without scores, and where the last
        layer has less: what classes are told by is then lost on the way.
    """
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).any():
        return None
    poor = np.flatnonzero(~(values >= _ENOUGH * np.nanmax(values)))
    first = int(poor[-1]) + 1 if len(poor) else 0
    return first if first < len(values) else None


def _moments(
    x: NDArray[np.float32], y: NDArray[np.integer], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Products of features, with one for the constant, among themselves and with the classes."""
    extended = np.c_[x, np.ones(len(x), np.float32)]
    aims = np.zeros((extended.shape[1], n))
    for k in range(n):
        aims[:, k] = extended[y == k].sum(axis=0, dtype=np.float64)
    return (extended.T @ extended).astype(np.float64), aims


def _ridge_weights(
    gram: NDArray[np.float64], aims: NDArray[np.float64], ridge: float
) -> NDArray[np.float32]:
    """Weights (c + 1, n), the constant last, which costs nothing."""
    count = max(gram[-1, -1], 1.0)
    penalty = np.full(len(gram), ridge * np.trace(gram[:-1, :-1]) / max(len(gram) - 1, 1))
    penalty[-1] = 1e-9 * count
    penalty += np.finfo(np.float32).tiny
    return solve(gram + np.diag(penalty), aims, assume_a="pos").astype(np.float32)
