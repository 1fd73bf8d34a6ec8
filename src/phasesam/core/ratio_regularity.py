"""Phases that look right in space, or stay as they were: wishes beside the ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter
from skimage.measure import label

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import Errors, RatioSolution, RatioSolver
from phasesam.core.ratio_request import Wanted

_ROUNDS = 40
_RULED_OUT = 200.0


def smooth_logits(
    logits: ArrayLike, image: ArrayLike, radius: int = 4, edge: float = 0.03
) -> NDArray[np.float32]:
    """Smooth logits, but not across edges of the image.

    The guided filter of He, Sun and Tang (IEEE TPAMI 35, 1397, 2013).

    Parameters
    ----------
    logits : (K, ...) float array
        Of K classes.
    image : (...) array
        Grey values, of any range.
    radius : int
        Half the side of the window in pixels; 0 changes nothing.
    edge : float
        Standard deviation in a window from which on it counts as an edge, as a share of the
        range of grey values between their 1st and 99th percentile.

    Returns
    -------
    (K, ...) float32 array

    Raises
    ------
    InvalidImageError
        If the shapes differ.
    InvalidSettingError
        If radius or edge make no sense.
    """
    z, guide = np.asarray(logits, dtype=np.float32), np.asarray(image, dtype=np.float32)
    if z.ndim != guide.ndim + 1 or z.shape[1:] != guide.shape:
        raise InvalidImageError(
            f"expected an image of the logits' shape {z.shape[1:]}, got {guide.shape}"
        )
    if radius < 0 or not edge > 0:
        raise InvalidSettingError(
            f"expected a radius of 0 or more and an edge above 0, got {radius} and {edge}"
        )
    if radius == 0:
        return z
    low, high = np.percentile(guide, (1, 99))
    guide = (guide - low) / max(float(high - low), 1e-9)
    size = 2 * radius + 1
    mean = uniform_filter(guide, size)
    variance = uniform_filter(guide * guide, size) - mean * mean
    result = np.empty_like(z)
    for k, plane in enumerate(z):
        average = uniform_filter(plane, size)
        slope = (uniform_filter(plane * guide, size) - average * mean) / (variance + edge**2)
        offset = average - slope * mean
        result[k] = uniform_filter(slope, size) * guide + uniform_filter(offset, size)
    return result


def reluctant(solver: RatioSolver) -> RatioSolver:
    """Make a solver that changes as few pixels as the amounts allow, the cheapest ones.

    The most likely map with amounts that contradict the image passes pixels on from phase to
    phase, from the first to one that looks like it and from there to the third: cheap steps, but
    twice as many, and a phase whose amount is right changes its place. This one does not.

    Parameters
    ----------
    solver : RatioSolver
        With the logits; it stays as it is.

    Returns
    -------
    RatioSolver
        Costs of its solutions are told by ``solver.judged``.
    """
    logits = solver.logits.copy()
    # A pixel saved is worth more than the dearest change of another one.
    lead = float((logits.max(axis=0) - logits.min(axis=0)).max()) + 1
    own = solver.own.reshape(-1)
    logits[own, np.arange(len(own))] += lead
    return RatioSolver(logits.reshape(-1, *solver.shape))


def solve_without_specks(
    solver: RatioSolver,
    fractions: Sequence[Wanted] | Mapping[int, Sequence[Wanted]],
    uncertainty: Errors | Mapping[int, Errors] = None,
    regions: ArrayLike | None = None,
    *,
    smallest: int,
) -> RatioSolution:
    """Label pixels with these shares and without connected regions of a few pixels.

    What is too small goes to the next likely class, and others make up for it where that costs
    least, so that the ratio holds. Some specks are left where that never ends.

    Parameters
    ----------
    solver : RatioSolver
        With the logits.
    fractions, uncertainty, regions
        As for `phasesam.core.ratio.solve`.
    smallest : int
        Pixels that a connected region has at least; neighbours share a side.

    Returns
    -------
    RatioSolution
        Its costs are those of the logits as they were given.

    Raises
    ------
    InvalidSettingError
        As `phasesam.core.ratio.solve`; also if `smallest` is negative.
    """
    if smallest < 0:
        raise InvalidSettingError(f"expected a size of 0 pixels or more, got {smallest}")
    solution = solver.solve(fractions, uncertainty, regions)
    if smallest < 2:
        return solution
    logits = solver.logits.copy()
    best = solution
    fewest = np.inf
    for _ in range(_ROUNDS):
        specks = np.flatnonzero(_specks(solution.labels, smallest))
        if len(specks) < fewest:
            best, fewest = solution, len(specks)
        if not len(specks):
            break
        logits[solution.labels.reshape(-1)[specks], specks] -= _RULED_OUT
        changed = RatioSolver(logits.reshape(-1, *solver.shape))
        solution = changed.solve(fractions, uncertainty, regions)
    return solver.judged(best)


def _specks(labels: NDArray[np.uint8], smallest: int) -> NDArray[np.bool_]:
    """Pixels, (n,), of connected regions that are too small."""
    parts = label(labels.astype(np.int32) + 1, connectivity=1).reshape(-1)
    small: NDArray[np.bool_] = np.bincount(parts) < smallest
    return small[parts]
