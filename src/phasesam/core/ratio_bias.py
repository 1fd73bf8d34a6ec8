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

_ROUNDS = 40
TIE = 1e-9
"""Logits nearer to each other are equally likely."""

_BLOCK = 1 << 16


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
    z = pixels.logits.astype(np.float64)
    bias = start.copy()
    total = z.shape[1] + int(pixels.settled.sum())
    for _ in range(_ROUNDS * len(z) if z.shape[1] else 0):
        bias += _common_shift(bias, amounts, total)
        lacks = _violations(z, bias, pixels.settled, amounts)
        worst = int(np.argmax(lacks))
        if lacks[worst] <= tolerance:
            break
        bias[worst] = _balanced(z, bias, worst, int(pixels.settled[worst]), amounts)
    return bias


def _common_shift(bias: NDArray[np.float64], amounts: Amounts, total: int) -> float:
    """Best shift of all biases together: it changes no class, but how far requests yield."""
    stiffness = float(amounts.stiffness.sum())
    exact = (amounts.stiffness == 0) & (amounts.low == amounts.high)
    if stiffness == 0 or not (exact | (amounts.stiffness > 0)).all():
        return 0.0
    wanted = float(amounts.aim.sum() + amounts.low[exact].sum())
    return (wanted - total - float(amounts.stiffness @ bias)) / stiffness


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


def _violations(
    z: NDArray[np.float64],
    bias: NDArray[np.float64],
    settled: NDArray[np.int64],
    amounts: Amounts,
) -> NDArray[np.float64]:
    """By how many pixels each class misses what is wanted, ties counted in its favour."""
    biased = z + bias[:, None]
    best = np.maximum.reduce(biased, axis=0)
    tied = biased >= best - TIE
    wins = np.array([np.count_nonzero(row) for row in tied])
    most = least = settled + wins
    if wins.sum() > len(best):
        shared = tied.sum(axis=0) > 1
        least = settled + (tied & ~shared).sum(axis=1)
    aim = amounts.aim - amounts.stiffness * bias
    low = np.where(amounts.stiffness > 0, aim - 1, amounts.low)
    high = np.where(amounts.stiffness > 0, aim + 1, amounts.high)
    # A class that may have more or less than its own amount is not to be pushed there.
    free = (amounts.stiffness == 0) & (amounts.low < amounts.high)
    pushed = np.zeros(len(bias))
    pushed[free & (bias > 0)] = np.maximum(least - amounts.low, 0)[free & (bias > 0)]
    pushed[free & (bias < 0)] = np.maximum(amounts.high - most, 0)[free & (bias < 0)]
    return np.maximum.reduce([low - most, least - high, pushed])


def _balanced(
    z: NDArray[np.float64],
    bias: NDArray[np.float64],
    k: int,
    settled: int,
    amounts: Amounts,
) -> float:
    """Bias of one class with which it has its amount, the others being as they are."""
    need = needed_bias(z, bias, k)
    if amounts.stiffness[k] > 0:
        return _yielding(np.sort(need), settled, float(amounts.aim[k]), float(amounts.stiffness[k]))
    low, high = int(amounts.low[k]), int(amounts.high[k])
    if low < high:
        own = settled + int((need <= 0).sum())
        if low <= own <= high:
            return 0.0
        low = high = low if own < low else high
    return _between(need, low - settled)


def needed_bias(z: NDArray[np.floating], bias: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Bias from which on class `k` wins each pixel of (K, n)."""
    others = z + bias[:, None]
    others[k] = -np.inf
    need: NDArray[np.float64] = np.maximum.reduce(others, axis=0)
    need -= z[k]
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
