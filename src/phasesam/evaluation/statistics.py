"""How sure a mean over images is: bootstrap intervals and paired differences.

The unit is the image, or the specimen where several images show the same one: pixels, tiles and
objects of one image are alike and no independent samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from phasesam.core.errors import InvalidSettingError

RESAMPLES = 2000
_EXACT_UNITS = 12


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes
    ----------
    mean : float
        NaN when there is no value.
    low, high : float
        Confidence interval; NaN with fewer than two units, which say nothing about scatter.
    n_units : int
        Images (or specimens) with a value.
    n_values : int
        Values, such as objects.
    """

    mean: float
    low: float
    high: float
    n_units: int
    n_values: int

    @property
    def is_known(self) -> bool:
        """Whether there is an interval at all."""
        return not math.isnan(self.low)

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Write ``0.812 [0.790, 0.834]``; ``0.812 [–]`` for one unit, ``–`` for none."""
        if math.isnan(self.mean):
            return "–"
        mean, low, high = (number(v, digits, sign=sign) for v in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]" if self.is_known else f"{mean} [–]"


@dataclass(frozen=True)
class PairedDifference:
    """How much better the second of two methods is on the same images.

    Attributes
    ----------
    interval : Interval
        Of the mean difference, second minus first.
    p_value : float
        Two-sided sign-flip test over units: how often chance alone makes a mean difference as
        large as this. With n units it cannot be below ``2 ** (1 - n)``; NaN without units.
    """

    interval: Interval
    p_value: float

    @property
    def is_better(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.interval.is_known and self.interval.low > 0

    def text(self, digits: int = 3) -> str:
        """Write ``+0.055 [+0.041, +0.069], p = 0.12``."""
        text = self.interval.text(digits, sign=True)
        return f"{text}, p = {self.p_value:.2g}" if self.interval.is_known else text


def number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """Write a number for a table; ``–`` for NaN."""
    # Rounded first, and 0 added: there is no -0.000.
    return (
        "–" if math.isnan(value) else f"{round(value, digits) + 0:{'+' if sign else ''}.{digits}f}"
    )


def bootstrap_interval(
    values: ArrayLike,
    groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    confidence: float = 0.95,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Estimate the interval of a mean by drawing whole units with replacement.

    Resampled means scatter too little for few units, by ``sqrt((n - 1) / n)``, and their scatter
    is itself only known from n units; the interval is widened for both (Student's t), as in
    `phasesam.core.phase_fraction.phase_fraction`. Of normal values, intervals from 3, 5 and 10
    units hold the true mean in 94, 95 and 94 % of the cases; the plain percentile interval holds
    it in 75, 84 and 90 %.

    Parameters
    ----------
    values : (n,) array-like
        One per image, or one per object with `groups`. NaN means "does not apply" and is left
        out, and so is a unit without other values.
    groups : (n,) sequence, optional
        The unit that each value belongs to, such as its image or specimen. The mean is over
        values, not over units.
    bounds : (float, float)
        What values can be at all, to cut the interval.
    confidence : float
        Between 0 and 1.
    n_resamples, seed : int
        Number of random draws, and where they start: the same input gives the same interval.

    Returns
    -------
    Interval
        NaN limits with fewer than two units.

    Raises
    ------
    InvalidSettingError
        If lengths differ or a setting is out of range.

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993.
    .. [2] C. A. Field and A. H. Welsh, "Bootstrapping clustered data", JRSS B 69, 2007.
    """
    if not 0 < confidence < 1 or n_resamples < 1:
        raise InvalidSettingError(
            f"expected a confidence within 0–1 and at least one resample, got {confidence} "
            f"and {n_resamples}"
        )
    sums, counts = _unit_sums(values, groups)
    n, n_values = len(sums), int(counts.sum())
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    mean = float(sums.sum() / counts.sum())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, n_values)
    draws = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    deviation = sums[draws].sum(axis=1) / counts[draws].sum(axis=1) - mean
    tail = (1 - confidence) / 2
    student = float(special.stdtrit(n - 1, 1 - tail) / special.ndtri(1 - tail))
    widened = deviation * student * math.sqrt(n / (n - 1))
    low, high = (mean + np.quantile(widened, (tail, 1 - tail))).tolist()
    return Interval(mean, max(low, bounds[0]), min(high, bounds[1]), n, n_values)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
    *,
    confidence: float = 0.95,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compare two methods on the same images: second minus first.

    Parameters
    ----------
    first, second : (n,) array-like
        Values of the same images (or objects) in the same order. Pairs with a NaN are left out.
    groups, confidence, n_resamples, seed
        As for `bootstrap_interval`.

    Returns
    -------
    PairedDifference
        Its interval is NaN with fewer than two units.

    Raises
    ------
    InvalidSettingError
        If lengths differ.
    """
    pair = [np.asarray(v, dtype=np.float64).reshape(-1) for v in (first, second)]
    if len(pair[0]) != len(pair[1]):
        raise InvalidSettingError(
            f"expected as many values of both methods, got {len(pair[0])} and {len(pair[1])}"
        )
    difference = pair[1] - pair[0]
    interval = bootstrap_interval(
        difference, groups, confidence=confidence, n_resamples=n_resamples, seed=seed
    )
    return PairedDifference(interval, _sign_flip(_unit_sums(difference, groups)[0], seed))


def _unit_sums(
    values: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each unit that has any."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if groups is None:
        index = np.arange(len(array))
    else:
        numbers: dict[Hashable, int] = {}
        index = np.array([numbers.setdefault(g, len(numbers)) for g in list(groups)], np.int64)
        if len(index) != len(array):
            raise InvalidSettingError(
                f"expected one group per value, got {len(index)} for {len(array)} values"
            )
    known = ~np.isnan(array)
    counts = np.bincount(index[known], minlength=1).astype(np.float64)
    sums = np.bincount(index[known], weights=array[known], minlength=1).astype(np.float64)
    return sums[counts > 0], counts[counts > 0]


def _sign_flip(sums: NDArray[np.float64], seed: int) -> float:
    """Two-sided test of sums being symmetric about 0: exact for few units, else by chance."""
    n = len(sums)
    if n == 0:
        return math.nan
    if n <= _EXACT_UNITS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        random = np.random.default_rng(seed).integers(0, 2, (10_000, n))
        signs = np.vstack([np.ones(n), 2.0 * random - 1])
    flipped = np.abs(signs @ sums)
    return float(np.mean(flipped >= abs(sums.sum()) * (1 - 1e-12)))
