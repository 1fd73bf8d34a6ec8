"""Phase fractions as hints: off by their standard errors, and completed where one is missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Fractions = NDArray[np.float64]


def noisy_fractions(true: Fractions, errors: Fractions, rng: np.random.Generator) -> Fractions:
    """Draw fractions that are off by standard errors.

    Parameters
    ----------
    true : (k,) array
        Fractions, adding up to 1.
    errors : (k,) array
        Standard errors.
    rng : numpy.random.Generator
        Chance.

    Returns
    -------
    (k,) array
        None below 0, adding up to 1: of equal errors, each keeps its size; shares smaller than
        their error are cut off at 0, and come out too large in the mean.
    """
    variance = np.square(errors)
    noise = rng.standard_normal(len(true)) * errors
    if variance.sum() > 0:
        # What errors add up to is taken from those that may be the most wrong.
        noise -= variance / variance.sum() * noise.sum()
        count = int(np.count_nonzero(errors))
        noise *= np.sqrt(count / max(1, count - 1))
    drawn = np.maximum(true + noise, 0)
    return np.asarray(drawn / drawn.sum())


def completed(shares: Fractions, errors: Fractions) -> tuple[Fractions, Fractions]:
    """Fill in the only share that is unknown: what the others leave, as unsure as they are.

    Parameters
    ----------
    shares : (k,) array
        Fractions; NaN where unknown.
    errors : (k,) array
        Standard errors.

    Returns
    -------
    shares, errors : (k,) arrays
        As they were unless exactly one is unknown; unknown ones have an error of 0.
    """
    missing = np.isnan(shares)
    errors = np.where(missing, 0.0, errors)
    if np.count_nonzero(missing) == 1:
        rest = max(0.0, 1.0 - float(np.nansum(shares)))
        return np.where(missing, rest, shares), np.where(
            missing, float(np.sqrt(np.square(errors).sum())), errors
        )
    return shares.copy(), errors
