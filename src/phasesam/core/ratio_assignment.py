"""Choose the class of every pixel once the biases are known: ties and remainders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from phasesam.core.ratio_bias import TIE, Pixels, tie_of
from phasesam.core.ratio_request import Amounts

_WORTH_CHOOSING = 32
_MOST_EXCHANGES = 10_000

Preference = Callable[[NDArray[np.intp]], NDArray[np.float32]]
"""For places of pixels, (m,), how gladly each class takes them, (K, m)."""


def assign(
    pixels: Pixels,
    bias: NDArray[np.float64],
    amounts: Amounts,
    prefer: Preference | None = None,
) -> NDArray[np.intp]:
    """Choose the class of each open pixel, so that amounts are met to the pixel.

    Parameters
    ----------
    pixels : Pixels
        What is to be labelled.
    bias : (K,) float64 array
        From `find_bias`.
    amounts : Amounts
        What is wanted.
    prefer : Preference, optional
        Which of equally likely pixels a class takes first.

    Returns
    -------
    (n,) array of class indices
    """
    biased = pixels.logits.astype(np.float64) + bias[:, None]
    best = biased.max(axis=0)
    labels = biased.argmax(axis=0)
    tied = biased >= best - tie_of(bias)
    shared = np.flatnonzero(tied.sum(axis=0) > 1)
    if len(shared):
        counts = pixels.settled + np.bincount(np.delete(labels, shared), minlength=len(bias))
        first = None if prefer is None or len(shared) < _WORTH_CHOOSING else prefer(shared)
        labels[shared] = _shared_out(tied[:, shared], counts, _limits(amounts, bias), first)
    moved = _make_up(biased, labels, pixels.settled, amounts)
    # Tied pixels can be given out in several ways within ranges, and not all are best.
    if moved or (amounts.low < amounts.high)[amounts.stiffness == 0].any():
        _exchange(biased, labels, pixels.settled, amounts, bias)
    return labels


def _shared_out(
    tied: NDArray[np.bool_],
    counts: NDArray[np.int64],
    limits: tuple[NDArray[np.int64], NDArray[np.int64]],
    first: NDArray[np.float32] | None,
) -> NDArray[np.intp]:
    """Give out pixels that several classes want equally, (K, m), as the amounts ask for."""
    groups, member = np.unique(tied, axis=1, return_inverse=True)
    member = member.reshape(-1)
    sizes = np.bincount(member, minlength=groups.shape[1])
    quota = _transport(groups, sizes, limits[0] - counts, limits[1] - counts)
    labels = np.zeros(tied.shape[1], dtype=np.intp)
    for group in range(groups.shape[1]):
        left = np.flatnonzero(member == group)
        for k in np.flatnonzero(groups[:, group]):
            if first is not None:
                others = groups[:, group] & (np.arange(len(tied)) != k)
                lead = first[k, left] - first[others][:, left].max(axis=0, initial=-np.inf)
                left = left[np.argsort(-lead, kind="stable")]
            taken = min(int(quota[group, k]), len(left))
            labels[left[:taken]], left = k, left[taken:]
        labels[left] = np.flatnonzero(groups[:, group])[0]
    return labels


def _limits(
    amounts: Amounts, bias: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and most pixels of each class; of uncertain ones, what their bias means."""
    yielding = amounts.stiffness > 0
    # A class that is pushed to the end of its range has no more of the tied pixels than that.
    low = np.where(bias < 0, amounts.high, amounts.low)
    high = np.where(bias > 0, amounts.low, amounts.high)
    aim = amounts.aim[yielding] - amounts.stiffness[yielding] * bias[yielding]
    low[yielding] = np.maximum(np.floor(aim), 0)
    high[yielding] = np.maximum(np.ceil(aim), 0)
    return low, high


def _transport(
    groups: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many pixels of each group go to each class: (groups, K), missing limits least."""
    k, g = groups.shape
    edges = np.argwhere(groups.T)
    n = len(edges)
    # What is missing, and what is too much, cost one each.
    cost = np.r_[np.zeros(n), np.ones(2 * k)]
    whole = np.zeros((g, n + 2 * k))
    whole[edges[:, 0], np.arange(n)] = 1
    inflow = np.zeros((k, n))
    inflow[edges[:, 1], np.arange(n)] = 1
    unit, none = np.eye(k), np.zeros((k, k))
    limits = np.r_[np.c_[inflow, none, -unit], np.c_[-inflow, -unit, none]]
    found = linprog(
        cost, A_ub=limits, b_ub=np.r_[high, -low], A_eq=whole, b_eq=sizes, method="highs-ds"
    )
    quota = np.zeros((g, k), dtype=np.int64)
    quota[edges[:, 0], edges[:, 1]] = np.rint(found.x[:n])
    return quota


def _make_up(
    biased: NDArray[np.float64],
    labels: NDArray[np.intp],
    settled: NDArray[np.int64],
    amounts: Amounts,
) -> bool:
    """Move what is still wrong, the cheapest pixels first; whether anything was moved."""
    n_classes, moved = len(biased), False
    strict = amounts.stiffness == 0
    while True:
        counts = settled + np.bincount(labels, minlength=n_classes)
        over = np.where(strict, np.maximum(counts - amounts.high, 0), 0)
        short = np.where(strict, np.maximum(amounts.low - counts, 0), 0)
        if not over.any() and not short.any():
            return moved
        spare = np.where(strict, counts - amounts.low, counts) if not over.any() else over
        room = np.where(strict, amounts.high - counts, counts.max()) if not short.any() else short
        move = _cheapest_move(biased, labels, spare, room)
        if move is None:
            return moved
        labels[move[0]], moved = move[1], True


def _exchange(
    biased: NDArray[np.float64],
    labels: NDArray[np.intp],
    settled: NDArray[np.int64],
    amounts: Amounts,
    bias: NDArray[np.float64],
) -> None:
    """Let classes exchange pixels as long as that is worth while, within their amounts.

    One pixel after another may go the cheapest way and all together not: then some classes can
    pass a pixel on in a circle at less than nothing (Klein, "A primal method for minimal cost
    flows", 1967). Through a last node go pixels of classes whose amounts are not fixed.
    """
    n_classes = len(biased)
    classes = np.arange(n_classes)
    strict = amounts.stiffness == 0
    for _ in range(_MOST_EXCHANGES):
        price = np.full((n_classes + 1, n_classes + 1), np.inf)
        pixel = np.zeros((n_classes, n_classes), np.intp)
        for source in classes:
            members = np.flatnonzero(labels == source)
            if len(members):
                lost = biased[source, members] - biased[:, members]
                cheapest = lost.argmin(axis=1)
                price[source, :-1] = lost[classes, cheapest]
                pixel[source] = members[cheapest]
        counts = settled + np.bincount(labels, minlength=n_classes)
        # What is gained there is not the class's own logit, but its bias.
        price[-1, :-1] = np.where(strict & (counts > amounts.low), -bias, np.inf)
        price[:-1, -1] = np.where(strict & (counts < amounts.high), bias, np.inf)
        np.fill_diagonal(price, np.inf)
        circle = _cheap_circle(price)
        if not circle:
            return
        for giver, taker in zip(circle, [*circle[1:], circle[0]], strict=True):
            if n_classes not in (giver, taker):
                labels[pixel[giver, taker]] = taker


def _cheap_circle(price: NDArray[np.float64]) -> list[int]:
    """Find nodes of a circle of negative price (Bellman and Ford); none if there is none."""
    n = len(price)
    best, before = np.zeros(n), np.full(n, -1)
    last = -1
    for _ in range(n):
        through = best[:, None] + price
        source = through.argmin(axis=0)
        found = through[source, np.arange(n)]
        better = np.flatnonzero(found < best - TIE)
        if not len(better):
            return []
        best[better], before[better], last = found[better], source[better], int(better[0])
    for _ in range(n):
        last = int(before[last])
    circle = [last]
    while int(before[circle[-1]]) != last:
        circle.append(int(before[circle[-1]]))
    return circle[::-1]


def _cheapest_move(
    biased: NDArray[np.float64],
    labels: NDArray[np.intp],
    spare: NDArray[np.int64],
    room: NDArray[np.int64],
) -> tuple[NDArray[np.intp], int] | None:
    """Pixels of one class that cost least in another one, as many as may go."""
    best: tuple[float, NDArray[np.intp], int] | None = None
    for source in np.flatnonzero(spare > 0):
        members = np.flatnonzero(labels == source)
        for target in np.flatnonzero(room > 0):
            amount = min(int(spare[source]), int(room[target]), len(members))
            if target == source or amount == 0:
                continue
            price = biased[source, members] - biased[target, members]
            chosen = np.argpartition(price, amount - 1)[:amount]
            mean = float(price[chosen].mean())
            if np.isfinite(mean) and (best is None or mean < best[0]):
                best = (mean, members[chosen], int(target))
    return None if best is None else (best[1], best[2])
