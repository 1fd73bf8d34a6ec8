"""Maps of phases that have wanted amounts: class probabilities of an image and a ratio."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import Errors, RatioSolution, RatioSolver
from phasesam.core.ratio_regularity import reluctant, smooth_logits, solve_without_specks
from phasesam.core.ratio_request import Wanted
from phasesam.engines.semantic import NO_CLASS, PhaseMap

_PREVIEW_SIDE = 256
_SMALLEST_PROBABILITY = 1e-30
_SOLVED_ONCE = ("solver", "coarse_solver", "_reluctant", "_coarse_reluctant", "own_labels")
_T = TypeVar("_T", bound=np.generic)

Shares = Sequence[Wanted] | Mapping[int, Sequence[Wanted]]
"""Wanted share of each class, or such by number of region."""


@dataclass(frozen=True)
class RatioConfig:
    """What is wished beside the amounts.

    Attributes
    ----------
    smoothing : int
        Radius in pixels within which logits are smoothed first, except across edges of the
        image; 0 for none.
    smallest : int
        Pixels that a connected region has at least; the ratio holds all the same. 0 or 1 for any.
    fewest : bool
        Whether as few pixels change as the amounts allow, instead of those that give the most
        likely map: safer where a request contradicts the image.

    Raises
    ------
    InvalidSettingError
        If a number is negative.
    """

    smoothing: int = 0
    smallest: int = 0
    fewest: bool = False

    def __post_init__(self) -> None:
        if self.smoothing < 0 or self.smallest < 0:
            raise InvalidSettingError(
                f"expected a smoothing and a size of 0 pixels or more, got {self.smoothing} and "
                f"{self.smallest}"
            )

    @property
    def needs_planes(self) -> bool:
        """Whether it is for single planes, not for stacks with one ratio."""
        return self.smallest > 1 or self.fewest


@dataclass(frozen=True, eq=False)
class GuidedMap:
    """A map of phases with wanted amounts.

    Attributes
    ----------
    labels : (h, w) uint8 array
        Index of the class; `NO_CLASS` in the data bar.
    solution : RatioSolution
        What was achieved and what it costs, for the mapped rows.
    """

    labels: NDArray[np.uint8]
    solution: RatioSolution


class RatioGuide:
    """Solves ratios on one map of phases, quickly on a coarse copy or in full.

    Parameters
    ----------
    phase_map : PhaseMap
        With its probabilities.
    image : (h, w) or (h, w, c) array, optional
        The image that was mapped; smoothing needs it.
    config : RatioConfig, optional
        How regular phases are to be.

    Raises
    ------
    InvalidImageError
        If the map has no probabilities, or the image has another size.
    InvalidSettingError
        If smoothing is wanted of no image.
    """

    def __init__(
        self,
        phase_map: PhaseMap,
        image: ArrayLike | None = None,
        config: RatioConfig | None = None,
    ) -> None:
        if phase_map.probabilities is None:
            raise InvalidImageError(
                "a ratio needs the probabilities of the map: map with keep_probabilities=True"
            )
        self.config = config or RatioConfig()
        self.classes = phase_map.classes
        self.shape = phase_map.labels.shape
        # The data bar has no classes.
        self.rows = self.shape[0] if phase_map.data_bar is None else phase_map.data_bar
        self._probabilities = phase_map.probabilities[:, : self.rows]
        self._image = None if image is None else self._grey(np.asarray(image))
        self._check()

    def _check(self) -> None:
        if self.config.smoothing and self._image is None:
            raise InvalidSettingError("smoothing needs the image, for it stops at its edges")

    def _grey(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        if image.shape[:2] != self.shape or image.ndim not in (2, 3):
            raise InvalidImageError(f"expected an image of {self.shape}, got {image.shape}")
        grey = image.astype(np.float32)[: self.rows]
        return grey if grey.ndim == 2 else grey.mean(axis=2)

    @cached_property
    def solver(self) -> RatioSolver:
        """Solver at full resolution."""
        logits = np.log(np.maximum(self._probabilities, _SMALLEST_PROBABILITY))
        if self.config.smoothing and self._image is not None:
            logits = smooth_logits(logits, self._image, self.config.smoothing)
        return RatioSolver(logits)

    @cached_property
    def coarse_step(self) -> int:
        """Side in pixels of what is one pixel of a preview."""
        return math.ceil(max(self.shape) / _PREVIEW_SIDE)

    @cached_property
    def coarse_solver(self) -> RatioSolver:
        """Solver on means over squares of `coarse_step` pixels."""
        step = self.coarse_step
        if step == 1:
            return self.solver
        full = self.solver.logits.reshape(len(self.classes), self.rows, self.shape[1])
        full = np.exp(full - full.max(axis=0))
        padding = [(0, -size % step) for size in full.shape[1:]]
        full = np.pad(full, [(0, 0), *padding], mode="edge")
        blocks = full.reshape(len(full), full.shape[1] // step, step, -1, step)
        means = blocks.mean(axis=(2, 4))
        return RatioSolver(np.log(np.maximum(means, _SMALLEST_PROBABILITY)))

    @cached_property
    def _reluctant(self) -> RatioSolver:
        return reluctant(self.solver)

    @cached_property
    def _coarse_reluctant(self) -> RatioSolver:
        return reluctant(self.coarse_solver)

    @property
    def _deciding(self) -> RatioSolver:
        return self._reluctant if self.config.fewest else self.solver

    def _at_cost(self, solver: RatioSolver, solution: RatioSolution) -> RatioSolution:
        """Tell costs by what the model sees, where others decided."""
        return solver.judged(solution) if self.config.fewest else solution

    @cached_property
    def own_labels(self) -> NDArray[np.uint8]:
        """What the model sees, (h, w); `NO_CLASS` in the data bar."""
        return self._in_full(self.solver.own, NO_CLASS)

    def with_config(self, config: RatioConfig) -> RatioGuide:
        """Take the same map with other wishes for regularity."""
        other = copy.copy(self)
        other.config = config
        other._check()
        if config.smoothing != self.config.smoothing:
            for name in _SOLVED_ONCE:
                other.__dict__.pop(name, None)
        return other

    def margin(self, found: GuidedMap, regions: ArrayLike | None = None) -> NDArray[np.float32]:
        """Tell how far pixels are from another class, (h, w) in nats; infinite in the data bar.

        See `phasesam.core.ratio.RatioSolver.margin`; of a full map, not of a preview.
        """
        margin = self._deciding.margin(found.solution, self._regions(regions))
        return self._in_full(margin, np.float32(np.inf))

    def _in_full(self, rows: NDArray[_T], rest: Any) -> NDArray[_T]:
        full = np.full(self.shape, rest, rows.dtype)
        full[: self.rows] = rows
        return full

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Share of each class as the model sees it, (K,)."""
        return self.solver.fractions

    def solve(
        self,
        fractions: Shares,
        uncertainty: Errors | Mapping[int, Errors] = None,
        regions: ArrayLike | None = None,
    ) -> GuidedMap:
        """Map the phases with these shares.

        Parameters
        ----------
        fractions, uncertainty
            As for `phasesam.core.ratio.solve`.
        regions : (h, w) integer array, optional
            Number of the region of each pixel.

        Raises
        ------
        InvalidSettingError
            See `phasesam.core.ratio.solve`.
        """
        numbers = self._regions(regions)
        solution = solve_without_specks(
            self._deciding, fractions, uncertainty, numbers, smallest=self.config.smallest
        )
        solution = self._at_cost(self.solver, solution)
        return GuidedMap(self._in_full(solution.labels, NO_CLASS), solution)

    def preview(
        self,
        fractions: Shares,
        uncertainty: Errors | Mapping[int, Errors] = None,
        regions: ArrayLike | None = None,
    ) -> GuidedMap:
        """Map the phases coarsely, fast enough to follow a slider; see `solve`.

        The labels have full size, and squares of equal values. Sizes of regions are not looked
        at.
        """
        step = self.coarse_step
        numbers = self._regions(regions)
        if numbers is not None:
            # The middle of each square, or the last pixel of one that the border cuts off before.
            at = [
                np.minimum(np.arange(n) * step + step // 2, m - 1)
                for n, m in zip(self.coarse_solver.shape, numbers.shape, strict=True)
            ]
            numbers = numbers[np.ix_(*at)]
        if numbers is not None and isinstance(fractions, Mapping):
            # Small regions may lie between the pixels of a preview.
            present = set(np.unique(numbers).tolist())
            fractions = {n: shares for n, shares in fractions.items() if n in present}
        deciding = self._coarse_reluctant if self.config.fewest else self.coarse_solver
        solution = deciding.solve(fractions, uncertainty, numbers)
        solution = self._at_cost(self.coarse_solver, solution)
        fine = solution.labels.repeat(step, axis=0).repeat(step, axis=1)
        fine = fine[: self.rows, : self.shape[1]]
        return GuidedMap(self._in_full(fine, NO_CLASS), solution)

    def _regions(self, regions: ArrayLike | None) -> NDArray[np.integer] | None:
        if regions is None:
            return None
        numbers: NDArray[np.integer] = np.asarray(regions)
        if numbers.shape != self.shape:
            raise InvalidSettingError(f"expected regions of {self.shape}, got {numbers.shape}")
        return numbers[: self.rows]


def guide_phases(
    phase_map: PhaseMap,
    fractions: Shares,
    uncertainty: Errors | Mapping[int, Errors] = None,
    *,
    image: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    config: RatioConfig | None = None,
) -> PhaseMap:
    """Make a map of phases obey a ratio.

    Parameters
    ----------
    phase_map : PhaseMap
        From `phasesam.segment_classes`, with probabilities.
    fractions, uncertainty, regions
        As for `phasesam.core.ratio.solve`.
    image : array, optional
        The image that was mapped; smoothing needs it.
    config : RatioConfig, optional
        Smoothing, smallest regions, fewest changes.

    Returns
    -------
    PhaseMap
        With other labels; the probabilities are those of the model.

    Raises
    ------
    InvalidImageError, InvalidSettingError
        See `RatioGuide` and `phasesam.core.ratio.solve`.

    Examples
    --------
    >>> import phasesam
    >>> found = phasesam.segment_classes(image, "steel")  # doctest: +SKIP
    >>> obeying = phasesam.guide_phases(found, [0.25, 0.55, None])  # doctest: +SKIP
    """
    result = RatioGuide(phase_map, image, config).solve(fractions, uncertainty, regions)
    return replace(phase_map, labels=result.labels)
