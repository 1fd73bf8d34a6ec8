"""Find the biases for many pixels by looking again at those only that could change hands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasesam.core.ratio_bias import Pixels, find_bias, needed_bias, settle
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
    z: NDArray[np.float32],
    amounts: Amounts,
    start: NDArray[np.float64] | None = None,
    safety: float = 3.0,
) -> Balance:
    """Find biases for many pixels.

    Biases of a sample settle most of the pixels; a sample of the rest settles most of these, and
    so on, until few are left, for which the biases are exact.

    Parameters
    ----------
    z : (K, n) float32 array
        Finite logits.
    amounts : Amounts
        What is wanted.
    start : (K,) float64 array, optional
        Biases near the result.
    safety : float
        Standard errors of the biases of a sample within which pixels stay open.
    """
    rng = np.random.default_rng(0)
    bias = np.zeros(len(z)) if start is None else start
    pixels = Pixels(z, np.zeros(len(z), np.int64))
    index = np.arange(z.shape[1])
    passed: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    while len(index) > _FEW:
        sample, wanted = _sampled(pixels, amounts, rng)
        bias = find_bias(sample, wanted, bias, tolerance=len(z))
        limits = _reliable(sample.logits, bias, safety)
        labels, open_ = settle(pixels.logits, bias).labels, _unsettled(pixels.logits, *limits)
        if len(open_) > len(index) // 2:
            break
        passed.append(limits)
        settled = pixels.settled + np.bincount(labels, minlength=len(z))
        settled -= np.bincount(labels[open_], minlength=len(z))
        pixels, index = Pixels(pixels.logits[:, open_], settled), index[open_]
    bias = find_bias(pixels, amounts, bias)
    # Beyond that, pixels thought to be settled would have changed hands.
    if not all(_within(bias, *limits) for limits in passed):
        return balance(z, amounts, bias, 3 * safety)
    return Balance(bias, index)


def _reliable(
    z: NDArray[np.floating], bias: NDArray[np.float64], safety: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Range of each bias within which a sample of its size leaves it."""
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
    return low, high


def _unsettled(
    z: NDArray[np.floating], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Pixels whose class depends on where the biases lie in their ranges."""
    surely = settle(z, low)
    possible = settle(z, high)
    # The class that wins at worst wins always, if all others at their best stay below it.
    rival = np.where(possible.labels == surely.labels, possible.second, possible.best)
    return np.flatnonzero(rival >= surely.best)


def _within(bias: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether biases lie in their ranges, all shifted alike if need be."""
    return float((low - bias).max()) < float((high - bias).min())


def _sampled(pixels: Pixels, amounts: Amounts, rng: np.random.Generator) -> tuple[Pixels, Amounts]:
    """Draw some of the open pixels; also what is wanted of them."""
    n, k = pixels.logits.shape[1], len(pixels.logits)
    factor = _FEW / n
    sample = pixels.logits[:, rng.integers(n, size=_FEW)].astype(np.float64)
    exact = amounts.low == amounts.high
    low, high = ((limit - pixels.settled) * factor for limit in (amounts.low, amounts.high))
    scaled = Amounts(
        np.maximum(np.where(exact, np.rint(low), np.floor(low)), 0).astype(np.int64),
        np.maximum(np.where(exact, np.rint(high), np.ceil(high)), 0).astype(np.int64),
        (amounts.aim - pixels.settled) * factor,
        amounts.stiffness * factor,
    )
    return Pixels(sample, np.zeros(k, np.int64)), scaled
