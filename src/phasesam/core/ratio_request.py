"""What is asked of the amounts of phases: exact, within limits, with an uncertainty, or unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidSettingError

Wanted = float | tuple[float, float] | None
"""Wanted share of a phase, 0–1; a range ``(low, high)``; None for unknown."""

EFFECTIVE_SAMPLES = 100.0
"""Weight of what the image says against what the request says, where that is uncertain.

As many independent observations as an image is worth. Measured on the validation images of a
nickel superalloy with shares that are off by their standard error: with 10, maps of Dice 0.94
lose 0.03 by an error of 0.02 and 0.004 by one of 0.1; with 100 at most 0.001; with 1000 nothing,
but then maps of unfamiliar samples gain little, too.
"""

FAR_OFF = 2.0
"""Standard errors that chance seldom exceeds."""

_NEGLIGIBLE = 1e-3
_ROUNDING, _MOST_ROUNDING = 5e-3, 2.5e-2


@dataclass(frozen=True, eq=False)
class Amounts:
    """Wanted numbers of pixels, class by class.

    Attributes
    ----------
    low, high : (K,) int64 array
        Fewest and most pixels. Equal where the amount is to be met exactly.
    aim : (K,) float64 array
        Wanted number of pixels of classes with an uncertainty.
    stiffness : (K,) float64 array
        Pixels that such a class may differ from `aim` for one nat of bias; 0 for the others.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    aim: NDArray[np.float64]
    stiffness: NDArray[np.float64]

    def of(self, classes: NDArray[np.intp]) -> Amounts:
        """Only those of some classes."""
        return Amounts(
            self.low[classes], self.high[classes], self.aim[classes], self.stiffness[classes]
        )

    def within_reach(self, settled: NDArray[np.int64], n_open: int) -> bool:
        """Whether pixels that are settled, (K,), and open ones, can have them together."""
        strict = self.stiffness == 0
        lacking = np.where(strict, np.maximum(self.low - settled, 0), 0)
        room = np.where(strict, self.high - settled, n_open)
        return bool((room >= 0).all() and lacking.sum() <= n_open <= room.sum())

    def scaled(self, settled: NDArray[np.int64], share: float) -> Amounts:
        """Scale to a share of the pixels, without those that are settled."""
        exact = self.low == self.high
        low, high = ((limit - settled) * share for limit in (self.low, self.high))
        return Amounts(
            np.maximum(np.where(exact, np.rint(low), np.floor(low)), 0).astype(np.int64),
            np.maximum(np.where(exact, np.rint(high), np.ceil(high)), 0).astype(np.int64),
            np.where(self.stiffness > 0, (self.aim - settled) * share, 0.0),
            self.stiffness * share,
        )


@dataclass(frozen=True)
class RatioRequest:
    """Wanted shares of K phases.

    Parameters
    ----------
    fractions : sequence of Wanted
        One per class: a number is met exactly, a pair is a range, None leaves the class to the
        model. Numbers may miss a sum of 1 by what rounding to per cent does; they are scaled.
    uncertainty : float or sequence of float or None
        Standard errors of the numbers. A class with one gets as close to its number as the
        image supports.

    Raises
    ------
    InvalidSettingError
        If a share is not within 0–1, or all together cannot add up to 1.
    """

    fractions: tuple[Wanted, ...]
    uncertainty: tuple[float, ...] = ()

    def __init__(
        self,
        fractions: Sequence[Wanted],
        uncertainty: float | Sequence[float | None] | None = None,
    ) -> None:
        wanted = tuple(_checked_share(k, value) for k, value in enumerate(fractions))
        if len(wanted) < 2:
            raise InvalidSettingError(f"expected shares of 2 classes or more, got {len(wanted)}")
        object.__setattr__(self, "fractions", _adding_up(wanted))
        object.__setattr__(self, "uncertainty", _checked_errors(uncertainty, wanted))

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.fractions)

    def amounts(self, n_pixels: int) -> Amounts:
        """Turn shares into numbers of pixels of an image of `n_pixels`.

        Numbers are rounded by the largest remainder, so that they add up.
        """
        exact = [k for k, value in enumerate(self.fractions) if isinstance(value, float)]
        shares = np.array([self.fractions[k] for k in exact], dtype=np.float64)
        counts = largest_remainder(shares, n_pixels)
        low, high = np.zeros(self.n_classes, np.int64), np.full(self.n_classes, n_pixels)
        aim, stiffness = np.zeros(self.n_classes), np.zeros(self.n_classes)
        for k, count in zip(exact, counts, strict=True):
            error = self.uncertainty[k]
            if error > 0:
                aim[k] = self.fractions[k] * n_pixels  # type: ignore[operator]
                stiffness[k] = error**2 * EFFECTIVE_SAMPLES * n_pixels
            else:
                low[k] = high[k] = count
        for k, value in enumerate(self.fractions):
            if isinstance(value, tuple):
                low[k] = math.ceil(value[0] * n_pixels - 1e-9)
                high[k] = math.floor(value[1] * n_pixels + 1e-9)
                # A narrow range may hold no whole number.
                low[k] = min(low[k], max(high[k], 0))
        return Amounts(*self._feasible(low, high, n_pixels), aim, stiffness)

    def standard_errors_off(self, achieved: ArrayLike) -> NDArray[np.float64]:
        """How far shares are from what is wanted, (K,), in standard errors; 0 where exact or free.

        A difference of a tenth of a point is none: images have whole pixels.

        Parameters
        ----------
        achieved : (K,) array
            Shares of the classes.
        """
        found = np.zeros(self.n_classes)
        for k, share in enumerate(np.asarray(achieved, dtype=np.float64)):
            wanted, error = self.fractions[k], self.uncertainty[k]
            if error > 0 and isinstance(wanted, float):
                missed = abs(share - wanted)
                found[k] = missed / error if missed > _NEGLIGIBLE else 0.0
        return found

    def least_change(self, own: ArrayLike, achieved: ArrayLike) -> float:
        """Share of pixels that must change for what is wanted, whatever the image.

        Parameters
        ----------
        own : (K,) array
            Shares of the classes before.
        achieved : (K,) array
            Shares to which uncertain ones yielded.
        """
        ends = [
            (share, share) if error > 0 and isinstance(wanted, float) else _ends(wanted)
            for wanted, error, share in zip(
                self.fractions, self.uncertainty, np.asarray(achieved).tolist(), strict=True
            )
        ]
        low, high = np.array(ends).T
        lacking = np.maximum(low - own, 0).sum()
        return float(max(lacking, np.maximum(np.asarray(own) - high, 0).sum()))

    def _feasible(
        self, low: NDArray[np.int64], high: NDArray[np.int64], n: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Widen limits that rounding made impossible, none by a whole pixel."""
        # Ranges first: of a number it was said exactly what it is to be.
        for k in np.argsort(low - high, kind="stable"):
            least, most = _ends(self.fractions[k])
            over, short = int(low.sum()) - n, n - int(high.sum())
            if over > 0:
                low[k] -= min(over, max(int(low[k]) - math.floor(least * n), 0))
            if short > 0:
                high[k] += min(short, max(math.ceil(most * n) - int(high[k]), 0))
        return low, high


def largest_remainder(shares: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Round shares of `n` to whole numbers with the rounded sum (Hamilton's method)."""
    parts = shares * n
    counts = np.floor(parts + 1e-9).astype(np.int64)
    missing = round(float(parts.sum())) - int(counts.sum())
    if missing > 0:
        counts[np.argsort(counts - parts, kind="stable")[:missing]] += 1
    return counts


def _checked_share(k: int, value: Wanted) -> Wanted:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    ends = value if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2 or not all(_is_share(end) for end in ends) or ends[0] > ends[1]:
        raise InvalidSettingError(
            f"class {k}: expected a share within 0–1, a range (low, high) of such, or None for "
            f"unknown, got {value!r}"
        )
    low, high = float(ends[0]), float(ends[1])
    return low if not isinstance(value, tuple | list) or low == high else (low, high)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and 0 <= float(value) <= 1


def _ends(value: Wanted) -> tuple[float, float]:
    if value is None:
        return 0.0, 1.0
    return value if isinstance(value, tuple) else (value, value)


def _adding_up(wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
    """Check that the shares can add up to 1; scale those that miss it by rounding."""
    low, high = (math.fsum(ends) for ends in zip(*map(_ends, wanted), strict=True))
    rounding = _rounding(wanted)
    if low > 1 + rounding or high < 1 - rounding:
        what = f"at least {low:.4g}" if low > 1 else f"at most {high:.4g}"
        raise InvalidSettingError(
            f"the shares of all classes must be able to add up to 1; those given add up to {what}"
        )
    # Only one of the two is not 1.
    down, up = 1 / max(low, 1.0), 1 / min(high, 1.0)
    return tuple(
        None if v is None
        else (v[0] * down, min(v[1] * up, 1.0)) if isinstance(v, tuple)
        else v * down * up
        for v in wanted
    )  # fmt: skip


def _rounding(wanted: tuple[Wanted, ...]) -> float:
    """By how much the shares may miss a sum of 1: each by half a point if all are per cent."""
    ends = [end for v in wanted if v is not None for end in _ends(v)]
    if any(abs(100 * end - round(100 * end)) > 1e-6 for end in ends):
        return _ROUNDING
    return max(_ROUNDING, min(_ROUNDING * len(ends) / 2, _MOST_ROUNDING)) + 1e-9


def _checked_errors(
    uncertainty: float | Sequence[float | None] | None, wanted: tuple[Wanted, ...]
) -> tuple[float, ...]:
    each = [uncertainty] * len(wanted) if np.ndim(uncertainty) == 0 else uncertainty  # type: ignore[arg-type]
    try:
        errors = [0.0 if error is None else float(error) for error in each]  # type: ignore[union-attr, arg-type]
    except (TypeError, ValueError):
        errors = []
    if len(errors) != len(wanted) or not all(0 <= error < math.inf for error in errors):
        raise InvalidSettingError(
            f"expected a standard error of 0 or more for each of {len(wanted)} classes, got "
            f"{uncertainty!r}"
        )
    return tuple(errors)
