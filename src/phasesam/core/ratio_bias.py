"""Find the bias of each class with which the most likely classes have the wanted amounts.

Adding one number per class to the logits and taking the largest is the labelling that gives up
least likelihood for its amounts: the semi-dual of optimal transport from pixels to classes. The
biases are found class by class, each by one order statistic of what the class lacks to win a
pixel; a class with an uncertainty stops where one more pixel costs more than it is worth. After
Guo et al., "OTTER" (arXiv 2404.08461), here with ranges and with a ridge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.ratio_request import Amounts

_ROUNDS, _GREEDY = 100, 2
TIE = 1e-9
"""Logits nearer to each other are equally likely; where they are small, see `tie_of`."""

_RESOLUTION = 1e-13
_BLOCK = 1 << 16
_FEW_CLASSES = 16


def tie_of(bias: NDArray[np.float64]) -> float:
    """How far equally likely logits may lie apart, for rounding, with biases like these."""
    return max(TIE, _RESOLUTION * float(np.abs(bias).max(initial=0.0)))


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels whose class is open, among others that are settled.

    Attributes
    ----------
    logits : (K, n) float array
        Of the open ones; finite.
    settled : (K,) int64 array
        Number of other pixels of each class.
    """

    logits: NDArray[np.floating]
    settled: NDArray[np.int64]


def count_classes(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class, (K,)."""
    if n_classes > _FEW_CLASSES:
        return np.bincount(labels, minlength=n_classes)
    # Faster than `bincount`, which makes large integers of all of them first.
    return np.array([np.count_nonzero(labels == k) for k in range(n_classes)], np.int64)


def find_bias(
    pixels: Pixels,
    amounts: Amounts,
    start: NDArray[np.float64],
    *,
    tolerance: int = 0,
) -> NDArray[np.float64]:
    """Balance the classes.

    Parameters
    ----------
    pixels : Pixels
        What is to be labelled.
    amounts : Amounts
        What is wanted of open and settled pixels together.
    start : (K,) float64 array
        Biases near the result.
    tolerance : int
        Pixels that a class may miss.

    Returns
    -------
    (K,) float64 array
    """
    # Selected pixels may lie class by class within each pixel, which takes ten times as long.
    z = pixels.logits.astype(np.float64, order="C")
    bias = start.copy()
    biased = z + bias[:, None]
    wishes = _Wishes.of(amounts, z.shape[1] + int(pixels.settled.sum()))
    for turn in range(_ROUNDS * len(z) if z.shape[1] else 0):
        shift = wishes.common_shift(bias)
        if shift:
            bias += shift
            biased += shift
        lacks = wishes.missed(*_won(biased, pixels.settled, tie_of(bias)), bias)
        worst = int(lacks.argmax())
        if lacks[worst] <= tolerance:
            break
        if turn >= _GREEDY * len(z) and lacks[turn % len(z)] > 0:
            # Two large classes that take from each other can go on for ever while a small one
            # waits that has what they lack.
            worst = turn % len(z)
        need = _needed(biased, worst, z[worst])
        bias[worst] = _balanced(need, worst, int(pixels.settled[worst]), amounts)
        # The other rows are as they were: a slider waits for these loops.
        np.add(z[worst], bias[worst], out=biased[worst])
    return bias


@dataclass(frozen=True, eq=False)
class _Wishes:
    """What is asked of each class at every turn, prepared once.

    Attributes
    ----------
    amounts : Amounts
        What is wanted.
    yielding, free : (K,) bool array
        Classes with an uncertainty; classes with a range.
    resists : float
        Stiffness of all classes together, if shifting all biases matters; else 0.
    surplus : float
        What all amounts together exceed the pixels by.
    """

    amounts: Amounts
    yielding: NDArray[np.bool_]
    free: NDArray[np.bool_]
    resists: float
    surplus: float

    @classmethod
    def of(cls, amounts: Amounts, total: int) -> _Wishes:
        yielding = amounts.stiffness > 0
        free = ~yielding & (amounts.low < amounts.high)
        resists = 0.0 if free.any() else float(amounts.stiffness.sum())
        surplus = float(amounts.aim.sum() + amounts.low[~yielding].sum()) - total
        return cls(amounts, yielding, free, resists, surplus)

    def common_shift(self, bias: NDArray[np.float64]) -> float:
        """Best shift of all biases together: it changes no class, but how far requests yield."""
        if self.resists == 0:
            return 0.0
        return (self.surplus - float(self.amounts.stiffness @ bias)) / self.resists

    def missed(
        self, most: NDArray[np.int64], least: NDArray[np.int64], bias: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """By how many pixels each class misses what is wanted, (K,), ties in its favour."""
        amounts, low, high = self.amounts, self.amounts.low, self.amounts.high
        if self.yielding.any():
            aim = amounts.aim - amounts.stiffness * bias
            low = np.where(self.yielding, aim - 1, low)
            high = np.where(self.yielding, aim + 1, high)
        missed: NDArray[np.float64] = np.maximum(low - most, least - high).astype(np.float64)
        # A class that may have more or less than its own amount is not to be pushed there.
        for k in np.flatnonzero(self.free & (bias != 0)):
            spare = least[k] - amounts.low[k] if bias[k] > 0 else amounts.high[k] - most[k]
            missed[k] = max(missed[k], spare)
        return missed


def _won(
    biased: NDArray[np.float64], settled: NDArray[np.int64], tie: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class, (K,): with all that it shares with others, and without."""
    best = np.maximum.reduce(biased, axis=0)
    n = len(best)
    best -= tie
    tied = biased >= best
    wins = np.array([np.count_nonzero(row) for row in tied])
    most = settled + wins
    if wins.sum() == n:
        return most, most
    shared = tied.sum(axis=0) > 1
    return most, settled + (tied & ~shared).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Settled:
    """What some biases mean for some pixels.

    Attributes
    ----------
    labels : (n,) uint8 array
        Class with the largest biased logit.
    best, second : (n,) float32 array
        Largest biased logit, and the largest of another class.
    """

    labels: NDArray[np.uint8]
    best: NDArray[np.float32]
    second: NDArray[np.float32]

    @property
    def margin(self) -> NDArray[np.float32]:
        """How far each pixel is from changing its class, in nats."""
        return self.best - self.second


def settle(z: NDArray[np.floating], bias: NDArray[np.float64]) -> Settled:
    """Find the best two classes of each pixel, (K, n), with these biases."""
    n = z.shape[1]
    labels = np.zeros(n, np.uint8)
    best, second = np.empty(n, np.float32), np.empty(n, np.float32)
    shift = bias.astype(np.float32)
    # Block by block: what lies in the cache is not fetched again for the next class.
    for start in range(0, n, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        top, next_best, label = best[block], second[block], labels[block]
        np.add(z[0, block], shift[0], out=top)
        next_best.fill(-np.inf)
        for k in range(1, len(z)):
            value = z[k, block] + shift[k]
            wins = value > top
            np.maximum(next_best, np.minimum(top, value), out=next_best)
            np.maximum(top, value, out=top)
            np.copyto(label, np.uint8(k), where=wins)
    return Settled(labels, best, second)


def _balanced(need: NDArray[np.float64], k: int, settled: int, amounts: Amounts) -> float:
    """Bias of one class with which it has its amount, the others being as they are."""
    if amounts.stiffness[k] > 0:
        return _yielding(np.sort(need), settled, float(amounts.aim[k]), float(amounts.stiffness[k]))
    low, high = int(amounts.low[k]), int(amounts.high[k])
    if low < high:
        own = settled + int(np.count_nonzero(need <= 0))
        if low <= own <= high:
            return 0.0
        low = high = low if own < low else high
    return _between(need, low - settled)


def needed_bias(z: NDArray[np.floating], bias: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Bias from which on class `k` wins each pixel of (K, n)."""
    return _needed(z + bias[:, None], k, z[k])


def _needed(biased: NDArray[np.float64], k: int, own: NDArray[np.floating]) -> NDArray[np.float64]:
    # The only class wins everywhere.
    need = np.full(len(own), -np.inf)
    for j, row in enumerate(biased):
        if j != k:
            np.maximum(need, row, out=need)
    need -= own
    return need


def _between(need: NDArray[np.float64], wins: int) -> float:
    """Bias above the `wins` smallest needs, half way to the next."""
    n = len(need)
    wins = min(max(wins, 0), n)
    places = sorted({min(max(wins - 1, 0), n - 1), min(wins, n - 1)})
    parts = np.partition(need, places)
    below, above = float(parts[places[0]]), float(parts[places[-1]])
    step = max(1.0, abs(below)) * 1e-6
    if wins == 0:
        return below - step
    return below + step if wins == n else (below + above) / 2


def _yielding(need: NDArray[np.float64], settled: int, aim: float, stiffness: float) -> float:
    """Bias at which the wins, ``need`` being sorted, are the aim less stiffness times bias."""
    wins = settled + np.arange(1, len(need) + 1)
    # First pixel that would be one too many.
    place = int(np.searchsorted(wins + stiffness * need, aim, side="right"))
    lowest = (aim - settled - place) / stiffness
    if place == len(need):
        return max(lowest, float(need[-1]) if place else lowest)
    return float(min(max(lowest, need[place - 1] if place else -np.inf), need[place]))
