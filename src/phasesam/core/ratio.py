"""Label an image so that the phases have the wanted amounts, where that costs least.

Works on any class logits, of any number of dimensions, as plain arrays. Most pixels are settled at
once by biases estimated on a sample; only those that could still change hands are looked at
again, so that a slider can be followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio_assignment import Preference
from phasesam.core.ratio_balance import label_pixels
from phasesam.core.ratio_bias import Pixels, count_classes, settle
from phasesam.core.ratio_request import RatioRequest, Wanted

_LARGEST, _LEAST_BAR = 1e36, 1000.0
MOST_CLASSES = 255


Errors = float | Sequence[float | None] | None
"""Standard error of all shares, or of each; None or 0 asks for a share exactly."""

CONTRADICTION = 9.0
"""From this ratio of probabilities on, a pixel's class contradicts the image."""

IMPLAUSIBLE = 0.02
"""From this share of contradicting pixels on, a request is doubtful."""

MANY_CHANGES = 1.25
"""From so many times the changes that shares need on, it is worth telling that fewer would do."""


@dataclass(frozen=True, eq=False)
class RatioSolution:
    """A labelling with the wanted amounts.

    Attributes
    ----------
    labels : (...) uint8 array
        Class of each pixel.
    achieved : (K,) float64 array
        Share of each class.
    bias : (K,) float64 array
        What was added to the logits, in nats; minus infinity for classes that were not wanted.
        With regions (R, K), in the order of `regions`.
    cost : float
        Likelihood given up, in nats per pixel: the mean of the highest logit less that of the
        class chosen.
    changed : float
        Share of pixels that have another class than the model's own.
    contradicted : float
        Share of pixels that have a class which the model holds for `CONTRADICTION` times less
        likely than its own.
    regions : tuple of int
        Numbers of the regions; empty without.
    specks : int
        Connected regions that are smaller than asked for all the same; see
        `phasesam.core.ratio_regularity.solve_without_specks`.
    """

    labels: NDArray[np.uint8]
    achieved: NDArray[np.float64]
    bias: NDArray[np.float64]
    cost: float
    changed: float
    contradicted: float
    regions: tuple[int, ...] = ()
    specks: int = 0


def solve(
    logits: ArrayLike,
    fractions: Sequence[Wanted] | Mapping[int, Sequence[Wanted]],
    uncertainty: Errors | Mapping[int, Errors] = None,
    regions: ArrayLike | None = None,
) -> RatioSolution:
    """Label pixels so that the classes have the wanted shares.

    Parameters
    ----------
    logits : (K, ...) float array
        Logits or logarithms of probabilities of K classes. Where it is minus infinity, a pixel
        gets the class only if the shares cannot be had otherwise.
    fractions : sequence of Wanted, or mapping of int to such
        Wanted share of each class: a number is met to the pixel; ``(low, high)`` is a range;
        None leaves the class to the model. With `regions`, the shares within each of them.
    uncertainty : float or sequence of float, or mapping of int to such, optional
        Standard errors of the numbers, as shares. The amounts then come as close to the numbers
        as the image supports: where it is sure, they stay away from them. One number is that of
        all classes, also of those with a share of 0.
    regions : (...) integer array, optional
        Number of the region of each pixel. Regions without fractions stay as the model sees
        them.

    Returns
    -------
    RatioSolution

    Raises
    ------
    InvalidImageError
        If the logits are none: NaN, or a pixel without any class.
    InvalidSettingError
        If shares cannot add up to 1, or numbers of classes or shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.random.default_rng(0).normal(size=(3, 64, 64))
    >>> solution = solve(logits, [0.2, None, (0.0, 0.1)])
    >>> float(solution.achieved[0])
    0.199951171875
    """
    return RatioSolver(logits).solve(fractions, uncertainty, regions)


class RatioSolver:
    """Solves several requests on the same logits, such as those of a slider.

    Parameters
    ----------
    logits : (K, ...) float array
        As for `solve`.

    Attributes
    ----------
    own : (...) uint8 array
        Most likely class of each pixel.
    logits : (K, n) float32 array
        Of all pixels in a row, less the highest of each pixel; finite.
    barred : (K, n) bool array or None
        Where they were minus infinity; None if nowhere.
    lowest : float
        Lowest of the logits that were not.

    Raises
    ------
    InvalidImageError
        See `solve`.
    """

    def __init__(self, logits: ArrayLike) -> None:
        array = np.asarray(logits)
        if array.ndim < 2 or not 2 <= len(array) <= MOST_CLASSES or array[0].size == 0:
            raise InvalidImageError(
                f"expected logits (K, ...) of 2 to {MOST_CLASSES} classes, got shape {array.shape}"
            )
        if array.dtype.kind not in "fiub":
            raise InvalidImageError(f"expected logits as real numbers, got {array.dtype}")
        self.shape = array.shape[1:]
        self.logits = _below_best(array.reshape(len(array), -1))
        self.barred: NDArray[np.bool_] | None = None
        self.lowest = float(self.logits.min())
        if np.isneginf(self.lowest):
            self.barred = np.isneginf(self.logits)
            self.lowest = float(self.logits[~self.barred].min())
            # Dearer than passing pixels on from class to class all the way.
            self.logits[self.barred] = min(len(array) * self.lowest, -_LEAST_BAR)
        settled = settle(self.logits, np.zeros(len(array)))
        self._best, self._own = settled.best, settled.labels
        self.own = self._own.reshape(self.shape)
        self._certain = settled.best > settled.second
        self._nearness: NDArray[np.float32] | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.logits)

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Share of each class as the model sees it, (K,)."""
        return count_classes(self._own, self.n_classes) / self._own.size

    def solve(
        self,
        fractions: Sequence[Wanted] | Mapping[int, Sequence[Wanted]],
        uncertainty: Errors | Mapping[int, Errors] = None,
        regions: ArrayLike | None = None,
    ) -> RatioSolution:
        """Label pixels with these shares; see `solve`."""
        if regions is None:
            if isinstance(fractions, Mapping) or isinstance(uncertainty, Mapping):
                raise InvalidSettingError("fractions by region need regions")
            request = self._request(fractions, uncertainty)
            everywhere = partial(self._preference, None)
            labels, bias = _labelled(self.logits, request, everywhere)
            return self._solution(labels, bias, ())
        if not isinstance(fractions, Mapping):
            raise InvalidSettingError("regions need fractions by region: {number: shares}")
        return self._by_region(fractions, uncertainty, np.asarray(regions))

    def _by_region(
        self,
        fractions: Mapping[int, Sequence[Wanted]],
        uncertainty: Errors | Mapping[int, Errors],
        regions: NDArray[np.integer],
    ) -> RatioSolution:
        if regions.shape != self.shape or regions.dtype.kind not in "iub":
            raise InvalidSettingError(
                f"expected regions as whole numbers of shape {self.shape}, got {regions.shape} "
                f"{regions.dtype}"
            )
        flat = regions.reshape(-1)
        labels, biases = self._own.copy(), []
        for number, shares in fractions.items():
            inside = np.flatnonzero(flat == number)
            if not len(inside):
                raise InvalidSettingError(f"there is no region {number}")
            errors = uncertainty.get(number) if isinstance(uncertainty, Mapping) else uncertainty
            request = self._request(shares, errors)
            part = self.logits.take(inside, axis=1)
            labels[inside], bias = _labelled(part, request, partial(self._preference, inside))
            biases.append(bias)
        return self._solution(labels, np.array(biases), tuple(fractions))

    def _preference(
        self, pixels: NDArray[np.intp] | None, places: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Nearness to where each class is certain: equally likely pixels join what is there.

        The places are those of all pixels, or among some of them.
        """
        if self._nearness is None:
            self._nearness = np.zeros((self.n_classes, self._own.size), np.float32)
            for k, near in enumerate(self._nearness):
                seeds = ((self._own == k) & self._certain).reshape(self.shape)
                if seeds.any():
                    near[:] = -distance_transform_edt(~seeds).reshape(-1)
                else:
                    near.fill(-sum(self.shape))
        return self._nearness[:, places if pixels is None else pixels[places]]

    def _request(self, shares: Sequence[Wanted], uncertainty: Errors) -> RatioRequest:
        request = RatioRequest(shares, uncertainty)
        if request.n_classes != self.n_classes:
            raise InvalidSettingError(
                f"expected shares of {self.n_classes} classes, got {request.n_classes}"
            )
        return request

    def _solution(
        self, labels: NDArray[np.uint8], bias: NDArray[np.float64], regions: tuple[int, ...]
    ) -> RatioSolution:
        n = labels.size
        lost = self.lost(labels)
        return RatioSolution(
            labels.reshape(self.shape),
            count_classes(labels, self.n_classes) / n,
            bias,
            float(lost.sum(dtype=np.float64) / n),
            len(lost) / n,
            contradicting(lost) / n,
            regions,
        )

    def judged(self, solution: RatioSolution) -> RatioSolution:
        """Say what a labelling that was found with other logits costs with these."""
        labels = solution.labels.reshape(-1)
        found = self._solution(labels, solution.bias, solution.regions)
        return replace(found, specks=solution.specks)

    def margin(self, solution: RatioSolution, regions: ArrayLike | None = None) -> NDArray[Any]:
        """How far pixels are from another class: those near 0 would change hands first.

        Parameters
        ----------
        solution : RatioSolution
            Of these logits.
        regions : (...) integer array, optional
            Those that it was solved with.

        Returns
        -------
        (...) float32 array
            In nats: lead of the biased logit of the label over those of the other classes.
        """
        bias = np.zeros((self.n_classes, self._own.size), np.float32)
        if (regions is None) != (not solution.regions):
            raise InvalidSettingError(
                f"expected the regions that it was solved with ({solution.regions or 'none'})"
            )
        if regions is None:
            bias[:] = solution.bias[:, None]
        else:
            flat = np.asarray(regions).reshape(-1)
            for number, shifts in zip(solution.regions, solution.bias, strict=True):
                bias[:, flat == number] = shifts[:, None]
        bias += self.logits
        places = (solution.labels.reshape(-1), np.arange(self._own.size))
        own = bias[places]
        bias[places] = -np.inf
        return (own - bias.max(axis=0)).reshape(self.shape)

    def lost(self, labels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Nats given up by each pixel, (m,), whose label is not the model's own."""
        labels = labels.reshape(-1)
        moved = np.flatnonzero(labels != self._own)
        lost: NDArray[np.float32] = self._best[moved] - self.logits[labels[moved], moved]
        return lost


def _below_best(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Take from the logits, (K, n), the highest of each pixel: small numbers are the finest.

    Raises
    ------
    InvalidImageError
        If they are none.
    """
    wide = logits.dtype not in (np.float16, np.float32)
    best = logits.max(axis=0)
    below = np.empty(logits.shape, np.float32)
    # Infinities become NaN here, and are refused; what is out of reach, minus infinity.
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(
            logits, best, out=below,
            dtype=np.float64 if wide else np.float32, casting="unsafe",
        )  # fmt: skip
    lowest = below.min()
    if np.isnan(lowest):
        raise InvalidImageError(
            "expected finite logits, got NaN, infinity or a pixel without any class"
        )
    if lowest < -_LARGEST:
        below[below < -_LARGEST] = -np.inf
    return below


def contradicting(lost: NDArray[np.float32]) -> int:
    """Count pixels that give up more nats than a contradiction needs."""
    return int(np.count_nonzero(lost > np.log(CONTRADICTION)))


def _labelled(
    z: NDArray[np.float32], request: RatioRequest, prefer: Preference
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Label the pixels (K, n); also the biases."""
    amounts = request.amounts(z.shape[1])
    bias = np.full(len(z), -np.inf)
    # Of the others nothing is wanted.
    classes = np.flatnonzero(amounts.high > 0)
    some = len(classes) < len(z)
    if some:
        z, amounts = z[classes], amounts.of(classes)
    pixels = Pixels(z, np.zeros(len(z), np.int64))
    labels, bias[classes] = label_pixels(pixels, amounts, lambda at: prefer(at)[classes])
    return classes.astype(np.uint8)[labels] if some else labels, bias
