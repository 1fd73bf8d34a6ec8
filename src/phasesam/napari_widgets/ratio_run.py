"""Maps phases with their probabilities, and solves ratios on them, in workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.napari_widgets.phase_run import PhaseRun, layer_values
from phasesam.session.ratio_sheet import WHOLE, RatioQuery

if TYPE_CHECKING:
    from phasesam.core.ratio import RatioSolution
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.ratio_guidance import GuidedMap, RatioConfig, RatioGuide

Regions = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class RatioAnswer:
    """What a request comes to on one plane.

    Attributes
    ----------
    values : (h, w) uint8 array
        Index of the class plus 1; 0 in the data bar.
    own, achieved : dict of int to (K,) float64 array
        Shares by number of region, as the model sees them and as they are now.
    solution : RatioSolution or None
        None where nothing is asked.
    is_coarse : bool
        Whether it is a preview.
    margin : (h, w) float32 array or None
        In nats, how far each pixel is from another class.
    """

    values: NDArray[np.uint8]
    own: dict[int, NDArray[np.float64]]
    achieved: dict[int, NDArray[np.float64]]
    solution: RatioSolution | None
    is_coarse: bool
    margin: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class RatioTask:
    """One request, as plain values.

    Attributes
    ----------
    guide : RatioGuide
        Of the plane.
    query : RatioQuery or None
        What is asked; None shows what the model sees.
    regions : (h, w) integer array or None
        Number of the region of each pixel.
    coarse : bool
        Whether a preview will do.
    with_margin : bool
        Whether it is asked what would flip first.
    """

    guide: RatioGuide
    query: RatioQuery | None
    regions: Regions | None
    coarse: bool = False
    with_margin: bool = False

    def answer(self) -> RatioAnswer:
        """Solve it."""
        own = self.guide.own_labels
        if self.query is None:
            shares = self._shares(own)
            return RatioAnswer(layer_values(own), shares, shares, None, False)
        found = self._solve(self.query)
        margin = None
        if self.with_margin and not self.coarse:
            margin = self.guide.margin(found, self.regions)
        return RatioAnswer(
            layer_values(found.labels),
            self._shares(own),
            self._shares(found.labels),
            found.solution,
            self.coarse,
            margin,
        )

    def _solve(self, query: RatioQuery) -> GuidedMap:
        solve = self.guide.preview if self.coarse else self.guide.solve
        if self.regions is None:
            return solve(query.fractions[WHOLE], query.errors[WHOLE])
        # A region may lie in the data bar alone, which has no phases.
        present = set(np.unique(self.regions[: self.guide.rows]).tolist())
        fractions = {n: shares for n, shares in query.fractions.items() if n in present}
        return solve(fractions, query.errors, self.regions)

    def _shares(self, labels: NDArray[np.uint8]) -> dict[int, NDArray[np.float64]]:
        """Share of each class in each region."""
        n = len(self.guide.classes)
        rows = labels[: self.guide.rows].reshape(-1)
        if self.regions is None:
            return {WHOLE: np.bincount(rows, minlength=n)[:n] / rows.size}
        numbers = self.regions[: self.guide.rows].reshape(-1)
        present, index = np.unique(numbers, return_inverse=True)
        counts = np.bincount(index * n + rows, minlength=len(present) * n).reshape(-1, n)
        return {
            int(number): count / count.sum() for number, count in zip(present, counts, strict=True)
        }


def guide_job(run: PhaseRun, config: RatioConfig) -> Callable[..., RatioGuide]:
    """Make the job that maps the plane in view, ready for requests.

    Returns
    -------
    callable
        ``job(progress, should_stop)``; returns a `RatioGuide`.
    """

    def job(progress: ProgressCallback, should_stop: StopCallback) -> RatioGuide:
        from phasesam.engines.ratio_guidance import RatioGuide
        from phasesam.engines.semantic import segment_classes

        segmenter = run.segmenter(run.planes[0]).get()
        found = segment_classes(
            segmenter,
            config=run.config,
            keep_probabilities=True,
            progress=progress,
            should_stop=should_stop,
        )
        guide = RatioGuide(found, _whole(segmenter.rgb, found.labels.shape), config)
        # Here, not at the first touch of a slider.
        _ = guide.coarse_solver
        return guide

    return job


def _whole(rgb: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Add the data bar that a segmenter leaves out."""
    missing = shape[0] - rgb.shape[0]
    return np.pad(rgb, [(0, missing), (0, 0), (0, 0)]) if missing else rgb
