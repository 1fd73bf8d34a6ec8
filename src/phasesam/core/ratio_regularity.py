"""Phases that look right in space, or stay as they were: wishes beside the ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter
from skimage.measure import label

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import Errors, RatioSolution, RatioSolver
from phasesam.core.ratio_request import RatioRequest, Wanted

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
        Of K classes; minus infinity stays.
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
    if radius < 0 or radius != int(radius) or not edge > 0:
        raise InvalidSettingError(
            f"expected a radius of 0 pixels or more, whole, and an edge above 0, got {radius} and "
            f"{edge}"
        )
    known = np.isfinite(guide)
    if radius == 0 or not known.any():
        return z.copy()
    # One pixel without a value would leave none in its window, and so on.
    guide = np.where(known, guide, np.median(guide[known]))
    barred = np.isneginf(z)
    if barred.any():
        z = np.where(barred, z[~barred].min(initial=0.0), z)
    low, high = np.percentile(guide, (1, 99))
    guide = (guide - low) / max(float(high - low), 1e-9)
    size = 2 * int(radius) + 1
    mean = uniform_filter(guide, size)
    variance = uniform_filter(guide * guide, size) - mean * mean
    result = np.empty_like(z)
    for k, plane in enumerate(z):
        average = uniform_filter(plane, size)
        slope = (uniform_filter(plane * guide, size) - average * mean) / (variance + edge**2)
        offset = average - slope * mean
        result[k] = uniform_filter(slope, size) * guide + uniform_filter(offset, size)
    result[barred] = -np.inf
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
    return _Reluctant(solver)


class _Reluctant(RatioSolver):
    """Solves with a lead of each pixel's own class."""

    def __init__(self, solver: RatioSolver) -> None:
        logits = solver.logits.copy()
        if solver.barred is not None:
            logits[solver.barred] = -np.inf
        own = solver.own.reshape(-1)
        # A pixel saved is worth more than the dearest change of another one.
        logits[own, np.arange(len(own))] += 1 - solver.lowest
        super().__init__(logits.reshape(-1, *solver.shape))
        self._plain = solver

    def solve(
        self,
        fractions: Sequence[Wanted] | Mapping[int, Sequence[Wanted]],
        uncertainty: Errors | Mapping[int, Errors] = None,
        regions: ArrayLike | None = None,
    ) -> RatioSolution:
        """Label pixels with these shares; how far uncertain ones yield, the image says."""
        firm = _firm(self._plain, fractions, uncertainty, regions)
        return super().solve(firm, None, regions)


def _firm(
    solver: RatioSolver,
    fractions: Sequence[Wanted] | Mapping[int, Sequence[Wanted]],
    uncertainty: Errors | Mapping[int, Errors],
    regions: ArrayLike | None,
) -> Sequence[Wanted] | Mapping[int, Sequence[Wanted]]:
    """Put what is achieved in the place of uncertain shares."""
    if not _yields(uncertainty):
        return fractions
    found = solver.solve(fractions, uncertainty, regions)
    if not isinstance(fractions, Mapping):
        return _settled(fractions, uncertainty, found.achieved)  # type: ignore[arg-type]
    numbers, settled = np.asarray(regions), {}
    for number, shares in fractions.items():
        counts = np.bincount(found.labels[numbers == number], minlength=solver.n_classes)
        errors = uncertainty.get(number) if isinstance(uncertainty, Mapping) else uncertainty
        settled[number] = _settled(shares, errors, counts / counts.sum())
    return settled


def _yields(uncertainty: Errors | Mapping[int, Errors]) -> bool:
    """Whether any share has a standard error."""
    each = list(uncertainty.values()) if isinstance(uncertainty, Mapping) else [uncertainty]
    return any(error is not None and np.any(np.array(error, dtype=object)) for error in each)


def _settled(
    shares: Sequence[Wanted], errors: Errors, achieved: NDArray[np.float64]
) -> list[Wanted]:
    """Take what was achieved for shares that are numbers, so that all are whole pixels."""
    return [
        float(found) if isinstance(wanted, float) else wanted
        for wanted, found in zip(RatioRequest(shares, errors).fractions, achieved, strict=True)
    ]


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
    if smallest < 2:
        return solver.solve(fractions, uncertainty, regions)
    # Logits are about to change that say how far an uncertain share yields.
    fractions = _firm(solver, fractions, uncertainty, regions)
    solution = solver.solve(fractions, None, regions)
    logits = solver.logits.copy()
    best, fewest = solution, np.inf
    for _ in range(_ROUNDS):
        specks, count = _specks(solution.labels, smallest)
        if len(specks) < fewest:
            best, fewest = replace(solution, specks=count), len(specks)
        if not count:
            break
        logits[solution.labels.reshape(-1)[specks], specks] -= _RULED_OUT
        changed = RatioSolver(logits.reshape(-1, *solver.shape))
        solution = changed.solve(fractions, None, regions)
    return solver.judged(best)


def _specks(labels: NDArray[np.uint8], smallest: int) -> tuple[NDArray[np.intp], int]:
    """Pixels of connected regions that are too small, (m,); also the number of these regions."""
    parts = label(labels.astype(np.int32) + 1, connectivity=1).reshape(-1)
    # All labels are more than 0, so that there is no part 0.
    small = np.bincount(parts) < smallest
    return np.flatnonzero(small[parts]), int(np.count_nonzero(small[1:]))
