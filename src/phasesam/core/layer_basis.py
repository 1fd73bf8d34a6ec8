"""Three numbers for each token: a basis in which layers of two models can be compared.

Principal components taken layer by layer flip and swap from one layer to the next, and those of
two models mean different things. Here models and pictures share the components of a layer, and
each layer is turned so that it looks most like the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, svd
from scipy.sparse.linalg import ArpackError, eigsh

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_moments import Moments

DIMENSIONS = 3
CANDIDATES = 32
"""Directions of a layer among which those that are shown are chosen."""

_ROUNDS = 5
_NO_VARIANCE = 1e-10
_SHRINKAGE = 1e-3
# Where iterating for some eigenvectors pays, and the vectors that it works with.
_MANY_CHANNELS, _FEW_VECTORS, _LANCZOS = 128, 32, 80


@dataclass(frozen=True, eq=False)
class Basis:
    """Turns the channels of a layer into a few numbers of mean 0 and deviation 1.

    Attributes
    ----------
    mean : (c,) float32 array
        Of the tokens that it was made from.
    matrix : (c, d) float32 array
        ``(tokens - mean) @ matrix`` are the scores.
    explained : (d,) float64 array
        Share of the variance that each direction had when it was found; with classes, of the
        variance between them.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]
    explained: NDArray[np.float64]

    def scores(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Scores (..., d) of tokens (..., c)."""
        found: NDArray[np.float32] = np.asarray(tokens, np.float32) @ self.matrix
        found -= self.mean @ self.matrix
        return found

    def turned(self, directions: NDArray[np.float64]) -> Basis:
        """Take the scores along orthonormal directions, the columns of a (d, n) matrix."""
        matrix = (self.matrix @ directions).astype(np.float32)
        return Basis(self.mean, matrix, self.explained @ np.square(directions))


def deviations(tokens: ArrayLike) -> NDArray[np.float32]:
    """Deviation of each channel of tokens (n, c), 1 where there is none: to standardise by."""
    found = np.asarray(tokens, np.float32).std(axis=0, dtype=np.float64)
    return np.where(found > _NO_VARIANCE, found, 1.0).astype(np.float32)


def principal_basis(tokens: ArrayLike | Moments, scale: ArrayLike, n: int = DIMENSIONS) -> Basis:
    """Find the principal components of standardised channels.

    Parameters
    ----------
    tokens : (m, c) array, or Moments
        Of all models and pictures together.
    scale : (c,) array
        Deviations that the channels are divided by, those of the base model.
    n : int
        Components.

    Returns
    -------
    Basis
        Signs are such that the largest loading of each component is positive.
    """
    moments = tokens if isinstance(tokens, Moments) else Moments.of([tokens])
    mean, covariance = moments.covariance(scale)
    variances, vectors = _largest(covariance, n)
    total = float(np.trace(covariance))
    explained = variances / total if total > 0 else np.zeros(n)
    return Basis(mean, _whitening(variances, vectors, np.asarray(scale, np.float32)), explained)


def class_basis(
    tokens: ArrayLike, labels: NDArray[np.integer], scale: ArrayLike, n: int = DIMENSIONS
) -> Basis:
    """Find the directions in which classes differ most for what they vary (Fisher, 1936).

    Parameters
    ----------
    tokens : (m, c) array
        Of all models and pictures together.
    labels : (m,) integer array
        Class of each token; negative where unknown.
    scale : (c,) array
        As for `principal_basis`.
    n : int
        Directions. There is one less than classes; the rest are the principal components of
        what is left.

    Raises
    ------
    InvalidSettingError
        If there are fewer than two classes.
    """
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2:
        raise InvalidSettingError(
            f"directions between classes need tokens of two classes or more, got {len(classes)}"
        )
    z, mean, scale = _standardised(tokens, scale)
    known = labels >= 0
    means = np.stack([z[labels == k].mean(axis=0, dtype=np.float64) for k in classes])
    counts = np.array([np.count_nonzero(labels == k) for k in classes], np.float64)
    spread = z[known] - means[np.searchsorted(classes, labels[known])].astype(np.float32)
    within = (spread.T @ spread).astype(np.float64) / counts.sum()
    centred = means - counts @ means / counts.sum()
    between = (centred.T * counts) @ centred / counts.sum()
    # Few tokens of many channels leave directions in which nothing seems to vary.
    # Where nothing varies at all within classes, what varies between them is the measure.
    spread_of_all = float(np.trace(within) + _SHRINKAGE * np.trace(between)) / len(within)
    shrunk = within + max(_SHRINKAGE * spread_of_all, _NO_VARIANCE) * np.eye(len(within))
    found = min(n, len(classes) - 1)
    values, directions = _largest(between, found, shrunk)
    directions = _orthonormal(directions)
    if found < n:
        projected = z - (z @ directions) @ directions.T
        rest = (projected.T @ projected).astype(np.float64) / len(z)
        directions = np.c_[directions, _largest(rest, n - found)[1]]
    explained = np.zeros(n)
    explained[:found] = values / max(float(values.sum()), _NO_VARIANCE)
    variances = (z @ directions).var(axis=0, dtype=np.float64)
    return Basis(mean, _whitening(variances, directions, scale), explained)


def continuous(
    scores: Sequence[NDArray[np.floating]],
    explained: Sequence[NDArray[np.float64]],
    n: int = DIMENSIONS,
) -> list[NDArray[np.float64]]:
    """Choose directions of each layer that look most like those of its neighbours.

    Parameters
    ----------
    scores : sequence of (m, d) float array
        Of each layer, at the same places, of deviation 1; more directions than are shown, by
        what they explain.
    explained : sequence of (d,) float64 array
        How much that is: of two directions that look alike, the one with more of the variance
        is taken.
    n : int
        Directions that are shown.

    Returns
    -------
    list of (d, n) float64 array
        Orthonormal columns: ``scores @ result`` are independent, of deviation 1.

    Notes
    -----
    Orthogonal Procrustes analysis (Schönemann, Psychometrika 31, 1966) from one layer to the
    next, then of each layer to the sum of both neighbours. With more directions than are shown
    a component that falls from the third place to the fourth does not vanish.
    """
    first = scores[0].shape[1]
    chosen = [np.eye(first, min(n, first))]
    shown = [scores[0] @ chosen[0]]
    for own, weight in zip(scores[1:], explained[1:], strict=True):
        chosen.append(_nearest(own, shown[-1], weight))
        shown.append(own @ chosen[-1])
    for _ in range(_ROUNDS if len(scores) > 1 else 0):
        for i, own in enumerate(scores):
            target = sum(shown[j] for j in (i - 1, i + 1) if 0 <= j < len(scores))
            chosen[i] = _nearest(own, np.asarray(target), explained[i])
            shown[i] = own @ chosen[i]
    return chosen


def _nearest(
    scores: NDArray[np.floating], target: NDArray[np.floating], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Orthonormal (d, n) matrix that brings scores nearest to a target (m, n)."""
    common = scores.T.astype(np.float64) @ target
    left, _, right = svd(np.sqrt(weight)[:, None] * common, full_matrices=False)
    result: NDArray[np.float64] = left @ right
    return result


def _standardised(
    tokens: ArrayLike, scale: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Tokens less their mean, by the scale; also both."""
    z = np.array(tokens, np.float32)
    mean = z.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.asarray(scale, np.float32)
    z -= mean
    z /= scale
    return z, mean, scale


def _largest(
    matrix: NDArray[np.float64], n: int, metric: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest eigenvalues (n,) and their vectors (c, n), signs settled."""
    size = len(matrix)
    n = min(n, size)
    few = metric is None and size >= _MANY_CHANNELS and n <= _FEW_VECTORS
    found = _leading(matrix, n) if few else None
    values, vectors = found or eigh(matrix, metric, subset_by_index=(size - n, size - 1))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(n)]
    return values, vectors * np.where(largest < 0, -1.0, 1.0)


def _leading(
    matrix: NDArray[np.float64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Find the largest eigenvalues, rising, by Lanczos' iteration; None where it goes astray.

    To the same precision several times as fast as a full reduction.
    """
    if not np.trace(matrix) > 0:
        return None
    start = np.random.default_rng(0).normal(size=len(matrix))
    try:
        values, vectors = eigsh(matrix, n, v0=start, ncv=_LANCZOS)
    except ArpackError:
        return None
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _orthonormal(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make directions orthonormal without turning any of them round."""
    q, r = np.linalg.qr(directions)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def _whitening(
    variances: NDArray[np.float64], vectors: NDArray[np.float64], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Matrix from channels to scores; zeros where nothing varies."""
    floor = _NO_VARIANCE * max(float(variances.max(initial=0.0)), _NO_VARIANCE)
    factors = np.where(variances > floor, 1 / np.sqrt(np.maximum(variances, floor)), 0.0)
    return (vectors * factors / scale[:, None]).astype(np.float32)
