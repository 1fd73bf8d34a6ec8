"""One ratio for a whole stack, slice by slice: the memory needed does not grow with the stack.

The slices are read a few times: once for a sample, once or more to count what is settled and to
collect what is open, and once to label them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import CancelledError, InvalidImageError, InvalidSettingError
from phasesam.core.ratio import RatioSolver, contradicting
from phasesam.core.ratio_balance import Limits, balance, label_pixels, reliable, unsettled
from phasesam.core.ratio_bias import Pixels
from phasesam.core.ratio_request import Amounts, RatioRequest, Wanted
from phasesam.core.types import ProgressCallback, StopCallback

_SAMPLE = 1 << 18
_MOST_OPEN = 1 << 19
_WIDER = 3.0
_PASSES = 24
_JITTER, _FINEST = 1e-3, 1e-5


@dataclass(frozen=True, eq=False)
class VolumeRatio:
    """What was achieved over a stack; as `phasesam.core.ratio.RatioSolution`, without labels."""

    achieved: NDArray[np.float64]
    bias: NDArray[np.float64]
    cost: float
    changed: float
    contradicted: float


def solve_volume(
    slices: Sequence[ArrayLike],
    fractions: Sequence[Wanted],
    uncertainty: float | Sequence[float | None] | None = None,
    *,
    write: Callable[[int, NDArray[np.uint8]], None],
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> VolumeRatio:
    """Label a stack so that the classes have the wanted shares of the whole.

    Parameters
    ----------
    slices : sequence of (K, h, w) float arrays
        Logits of each slice, read several times; a Zarr or dask array (z, K, h, w) will do.
        Slices may differ in height and width.
    fractions, uncertainty
        As for `phasesam.core.ratio.solve`.
    write : callable
        ``write(index, labels)`` is given the (h, w) uint8 labels of one slice after the other.
    progress : callable, optional
        ``progress(done, total)`` in slices read, of three times as many as there are; more where
        they have to be read again.
    should_stop : callable, optional
        Asked before each slice.

    Returns
    -------
    VolumeRatio

    Raises
    ------
    InvalidImageError, InvalidSettingError
        As `phasesam.core.ratio.solve`; also if slices differ in their number of classes.
    CancelledError
        If it was stopped; some slices may have been written.
    """
    stack = _Stack(slices, progress, should_stop)
    request = RatioRequest(fractions, uncertainty)
    sample, n_pixels = stack.sample(request.n_classes)
    amounts = request.amounts(n_pixels)
    # Of the others nothing is wanted.
    stack.classes = classes = np.flatnonzero(amounts.high > 0)
    amounts, wanted = amounts.of(classes), request.amounts(sample.shape[1]).of(classes)
    limits, pixels = _narrowed(stack, sample[classes], (amounts, wanted), n_pixels)
    labels, bias = label_pixels(pixels, amounts)
    every = np.full(request.n_classes, -np.inf)
    every[classes] = bias
    return stack.label(limits, classes.astype(np.uint8)[labels], every, write)


def _narrowed(
    stack: _Stack,
    sample: NDArray[np.float32],
    requests: tuple[Amounts, Amounts],
    n_pixels: int,
) -> tuple[Limits, Pixels]:
    """Limits of the biases, and the pixels that they leave open, few enough to be kept.

    The requests are what is wanted of all pixels, and of the sample.
    """
    amounts, wanted = requests
    nothing = np.zeros(len(sample), np.int64)
    safety, before = _WIDER, 0.0
    for number in count():
        limits = reliable(sample, balance(Pixels(sample, nothing), wanted).bias, safety)
        # What does not end that way is kept whole, whatever memory it takes.
        pixels, share = stack.collect(limits, _MOST_OPEN if number < _PASSES else None)
        n_open = n_pixels - int(pixels.settled.sum())
        if not amounts.within_reach(pixels.settled, n_open):
            # Some are settled wrongly: nothing can be learnt from the others.
            safety *= _WIDER
        elif share < 1:
            # Too many to be kept: those that were stand for all, and narrow the limits. Ties
            # are never narrowed; chance breaks them.
            stack.jittered = stack.jittered or share <= before
            before, safety = share, _WIDER
            sample, wanted = pixels.logits, amounts.scaled(pixels.settled, share)
        elif limits.hold(balance(pixels, amounts).bias):
            break
        else:
            safety *= _WIDER
    return limits, pixels


class _Stack:
    """Slices, read again and again."""

    def __init__(
        self,
        slices: Sequence[ArrayLike],
        progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        if len(slices) == 0:
            raise InvalidImageError("expected a stack of at least one slice, got none")
        self._slices = slices
        self._progress, self._should_stop = progress, should_stop
        self._read = 0
        self._n_classes: int | None = None
        self.classes: NDArray[np.intp] = np.arange(0)
        self.jittered = False

    def _solvers(self) -> Iterator[RatioSolver]:
        """Read all slices."""
        n = len(self._slices)
        for index in range(n):
            if self._should_stop is not None and self._should_stop():
                raise CancelledError("solving the ratio of the stack was stopped")
            solver = RatioSolver(self._slices[index])
            if self._n_classes not in (None, solver.n_classes):
                raise InvalidImageError(
                    f"expected slices of {self._n_classes} classes, got {solver.n_classes} in "
                    f"slice {index}"
                )
            self._n_classes = solver.n_classes
            yield solver
            self._read += 1
            if self._progress is not None:
                self._progress(self._read, max(3 * n, self._read))

    def _logits(self, solver: RatioSolver, index: int) -> NDArray[np.float32]:
        logits = solver.logits[self.classes]
        if self.jittered:
            rng = np.random.default_rng(index)
            # Large enough to be seen beside the largest of them.
            size = max(_JITTER, -_FINEST * float(logits.min()))
            logits += size * rng.random(logits.shape, dtype=np.float32)
        return logits

    def sample(self, n_classes: int) -> tuple[NDArray[np.float32], int]:
        """Draw pixels of all slices, (K, m); also how many there are."""
        rng = np.random.default_rng(0)
        each = -(-_SAMPLE // len(self._slices))
        parts, n_pixels = [], 0
        for solver in self._solvers():
            if solver.n_classes != n_classes:
                raise InvalidSettingError(
                    f"expected shares of {solver.n_classes} classes, got {n_classes}"
                )
            parts.append(solver.logits.take(rng.integers(solver.own.size, size=each), axis=1))
            n_pixels += solver.own.size
        return np.concatenate(parts, axis=1), n_pixels

    def collect(self, limits: Limits, most: int | None) -> tuple[Pixels, float]:
        """Keep what the limits leave open, or a share of it; count the rest."""
        rng = np.random.default_rng(1)
        settled = np.zeros(len(self.classes), np.int64)
        parts: list[NDArray[np.float32]] = []
        kept, share = 0, 1.0
        for index, solver in enumerate(self._solvers()):
            logits = self._logits(solver, index)
            labels, open_ = unsettled(logits, limits)
            settled += np.bincount(labels, minlength=len(settled))
            settled -= np.bincount(labels[open_], minlength=len(settled))
            parts.append(_some(logits[:, open_], share, rng))
            kept += parts[-1].shape[1]
            while most is not None and kept > most:
                share /= 2
                parts = [_some(part, 0.5, rng) for part in parts]
                kept = sum(part.shape[1] for part in parts)
        return Pixels(np.concatenate(parts, axis=1), settled), share

    def label(
        self,
        limits: Limits,
        chosen: NDArray[np.uint8],
        bias: NDArray[np.float64],
        write: Callable[[int, NDArray[np.uint8]], None],
    ) -> VolumeRatio:
        """Write all slices; open pixels get the classes chosen, in their order."""
        counts = np.zeros(len(bias), np.int64)
        given, moved, against, cost = 0, 0, 0, 0.0
        for index, solver in enumerate(self._solvers()):
            labels, open_ = unsettled(self._logits(solver, index), limits)
            labels = self.classes.astype(np.uint8)[labels]
            labels[open_] = chosen[given : given + len(open_)]
            given += len(open_)
            lost = solver.lost(labels)
            counts += np.bincount(labels, minlength=len(bias))
            moved, against = moved + len(lost), against + contradicting(lost)
            cost += float(lost.sum(dtype=np.float64))
            write(index, labels.reshape(solver.shape))
        n = int(counts.sum())
        return VolumeRatio(counts / n, bias, cost / n, moved / n, against / n)


def _some(
    logits: NDArray[np.float32], share: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Keep each pixel, (K, n), with this probability."""
    return logits if share == 1 else logits[:, rng.random(logits.shape[1]) < share]
