"""Find the biases for many pixels by looking again at those only that could change hands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.ratio_assignment import Preference, assign
from phasesam.core.ratio_bias import Pixels, count_classes, find_bias, needed_bias, settle
from phasesam.core.ratio_request import Amounts

_FEW = 4096


@dataclass(frozen=True, eq=False)
class Balance:
    """Biases, and the pixels that they leave to be given out.

    Attributes
    ----------
    bias : (K,) float64 array
        In nats.
    open_ : (m,) index array
        Pixels near enough to a change of class that ties and remainders concern them only.
    """

    bias: NDArray[np.float64]
    open_: NDArray[np.intp]


def balance(
    pixels: Pixels,
    amounts: Amounts,
    start: NDArray[np.float64] | None = None,
    safety: float = 3.0,
) -> Balance:
    """Find biases for many pixels.

    Biases of a sample settle most of the pixels; a sample of the rest settles most of these, and
    so on, until few are left, for which the biases are exact.

    Parameters
    ----------
    pixels : Pixels
        What is to be labelled.
    amounts : Amounts
        What is wanted of open and settled pixels together.
    start : (K,) float64 array, optional
        Biases near the result.
    safety : float
        Standard errors of the biases of a sample within which pixels stay open.
    """
    rng = np.random.default_rng(0)
    given, n_classes = pixels, len(pixels.logits)
    bias = np.zeros(n_classes) if start is None else start
    index = np.arange(pixels.logits.shape[1])
    passed: list[Limits] = []
    while len(index) > _FEW:
        sample, wanted = _sampled(pixels, amounts, rng)
        bias = find_bias(sample, wanted, bias, tolerance=n_classes)
        limits = reliable(sample.logits, bias, safety)
        labels, open_ = unsettled(pixels.logits, limits)
        if len(open_) > len(index) // 2:
            break
        passed.append(limits)
        settled = pixels.settled + count_classes(labels, n_classes)
        settled -= count_classes(labels[open_], n_classes)
        # Indexing would lay the classes of a pixel side by side, and all that follows be slow.
        pixels, index = Pixels(pixels.logits.take(open_, axis=1), settled), index[open_]
    bias = find_bias(pixels, amounts, bias)
    # Beyond that, pixels thought to be settled would have changed hands; and of a class that has
    # too many of these, the bias says nothing.
    reached = amounts.within_reach(pixels.settled, len(index))
    if passed and not (reached and all(limits.hold(bias) for limits in passed)):
        return balance(given, amounts, bias, 3 * safety)
    return Balance(bias, index)


def label_pixels(
    pixels: Pixels, amounts: Amounts, prefer: Preference | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Choose the class of every open pixel, (n,); also the biases, (K,)."""
    balanced = balance(pixels, amounts)
    labels, open_ = settle(pixels.logits, balanced.bias).labels, balanced.open_
    n_classes = len(pixels.logits)
    counts = pixels.settled + count_classes(labels, n_classes)
    counts -= count_classes(labels[open_], n_classes)
    left = Pixels(pixels.logits.take(open_, axis=1), counts)
    first = None if prefer is None else lambda at: prefer(open_[at])
    labels[open_] = assign(left, balanced.bias, amounts, first)
    return labels, balanced.bias


@dataclass(frozen=True, eq=False)
class Limits:
    """Range of each bias, (K,) float64 arrays."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def hold(self, bias: NDArray[np.float64]) -> bool:
        """Whether biases lie in their ranges, all shifted alike if need be."""
        return float((self.low - bias).max()) < float((self.high - bias).min())


def reliable(z: NDArray[np.floating], bias: NDArray[np.float64], safety: float = 3.0) -> Limits:
    """Range within which a sample, (K, n), leaves each bias, in standard errors."""
    low, high = np.empty(len(z)), np.empty(len(z))
    n = z.shape[1]
    for k in range(len(z)):
        need = needed_bias(z, bias, k)
        wins = int(np.count_nonzero(need < bias[k]))
        error = math.ceil(safety * math.sqrt(max(wins, 1)))
        ends = [min(max(wins - error, 0), n - 1), min(wins + error, n - 1)]
        low[k], high[k] = np.partition(need, sorted(set(ends)))[ends]
        # At the end of all needs there is nothing to tell how far it may go.
        low[k] = min(low[k], bias[k]) if wins > error else -np.inf
        high[k] = max(high[k], bias[k]) if wins + error < n else np.inf
    return Limits(low, high)


def unsettled(
    z: NDArray[np.floating], limits: Limits
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Classes, (n,), where they are the same wherever the biases lie; also where they are not."""
    surely = settle(z, limits.low)
    possible = settle(z, limits.high)
    # The class that wins at worst wins always, if all others at their best stay below it.
    rival = np.where(possible.labels == surely.labels, possible.second, possible.best)
    return surely.labels, np.flatnonzero(~(rival < surely.best))


def _sampled(pixels: Pixels, amounts: Amounts, rng: np.random.Generator) -> tuple[Pixels, Amounts]:
    """Draw some of the open pixels; also what is wanted of them."""
    n_classes, n = pixels.logits.shape
    sample = pixels.logits.take(rng.integers(n, size=_FEW), axis=1).astype(np.float64)
    wanted = amounts.scaled(pixels.settled, _FEW / n)
    return Pixels(sample, np.zeros(n_classes, np.int64)), wanted
