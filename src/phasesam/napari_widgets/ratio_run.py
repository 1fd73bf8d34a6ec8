"""Maps phases with their probabilities, and solves ratios on them, in workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.ratio_bias import count_classes
from phasesam.napari_widgets.phase_run import PhaseRun, layer_values
from phasesam.session.ratio_sheet import WHOLE, RatioQuery

if TYPE_CHECKING:
    from phasesam.core.ratio import RatioSolution
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.phase_hints import PhaseHints
    from phasesam.engines.ratio_guidance import GuidedMap, RatioConfig, RatioGuide
    from phasesam.engines.segmenter import Segmenter
    from phasesam.engines.semantic import WindowEmbeddings

Regions = NDArray[np.integer[Any]]

_FEW_CLASSES = 4
# Pixels of a plane that is previewed, or solved in full, while the window can wait.
_PREVIEWED, _SOLVED = 1 << 20, 1 << 16


@dataclass(frozen=True, eq=False)
class RatioAnswer:
    """What a request comes to on one plane.

    Attributes
    ----------
    task : RatioTask
        The request that it answers; meanwhile others may have been made.
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

    task: RatioTask
    values: NDArray[np.uint8]
    own: dict[int, NDArray[np.float64]]
    achieved: dict[int, NDArray[np.float64]]
    solution: RatioSolution | None
    is_coarse: bool
    margin: NDArray[np.float32] | None = None

    @property
    def config(self) -> RatioConfig:
        """What was wished beside the shares."""
        return self.task.guides.guide.config


@dataclass(frozen=True, eq=False)
class RatioGuides:
    """What requests are solved on, and judged by.

    Attributes
    ----------
    guide : RatioGuide
        Of the map that is changed.
    untold : RatioGuide
        Of what the model sees without being told anything: the same unless it was told shares.
    """

    guide: RatioGuide
    untold: RatioGuide

    def with_config(self, config: RatioConfig) -> RatioGuides:
        """Take the same maps with other wishes for regularity."""
        guide = self.guide.with_config(config)
        is_same = self.untold is self.guide
        return RatioGuides(guide, guide if is_same else self.untold.with_config(config))


@dataclass(frozen=True, eq=False)
class RatioTask:
    """One request, as plain values.

    Attributes
    ----------
    guides : RatioGuides
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

    guides: RatioGuides
    query: RatioQuery | None
    regions: Regions | None
    coarse: bool = False
    with_margin: bool = False

    @property
    def has_regions(self) -> bool:
        """Whether there are regions with shares of their own."""
        return self.regions is not None

    @property
    def is_quick(self) -> bool:
        """Whether the answer takes some milliseconds only."""
        guide = self.guides.guide
        most = _PREVIEWED if self.coarse else _SOLVED
        is_plain = self.regions is None and (self.coarse or not guide.config.smallest)
        return is_plain and len(guide.classes) <= _FEW_CLASSES and math.prod(guide.shape) <= most

    def answer(self) -> RatioAnswer:
        """Solve it."""
        own = self.guides.untold.own_labels
        if self.query is None:
            shares = self._shares(own)
            return RatioAnswer(self, layer_values(own), shares, shares, None, False)
        found = self._solve(self.query)
        margin = None
        if self.with_margin and not self.coarse:
            margin = self.guides.guide.margin(found, self.regions)
        return RatioAnswer(
            self,
            layer_values(found.labels),
            self._shares(own),
            self._shares(found.labels),
            self._judged(found.solution),
            self.coarse,
            margin,
        )

    def _judged(self, solution: RatioSolution) -> RatioSolution:
        """Say what it costs by what the model sees without being told."""
        if self.guides.untold is self.guides.guide:
            return solution
        solver = self.guides.untold.coarse_solver if self.coarse else self.guides.untold.solver
        return solver.judged(solution)

    def _solve(self, query: RatioQuery) -> GuidedMap:
        solve = self.guides.guide.preview if self.coarse else self.guides.guide.solve
        if self.regions is None:
            return solve(query.fractions[WHOLE], query.errors[WHOLE])
        # A region may lie in the data bar alone, which has no phases.
        present = set(np.unique(self.regions[: self.guides.guide.rows]).tolist())
        fractions = {n: shares for n, shares in query.fractions.items() if n in present}
        return solve(fractions, query.errors, self.regions)

    def _shares(self, labels: NDArray[np.uint8]) -> dict[int, NDArray[np.float64]]:
        """Share of each class in each region."""
        n = len(self.guides.guide.classes)
        rows = labels[: self.guides.guide.rows].reshape(-1)
        if self.regions is None:
            return {WHOLE: count_classes(rows, n) / rows.size}
        numbers = self.regions[: self.guides.guide.rows].reshape(-1)
        present, index = np.unique(numbers, return_inverse=True)
        counts = np.bincount(index * n + rows, minlength=len(present) * n).reshape(-1, n)
        return {
            int(number): count / count.sum() for number, count in zip(present, counts, strict=True)
        }


def guide_job(
    run: PhaseRun, config: RatioConfig, hints: PhaseHints | None = None
) -> Callable[..., RatioGuides]:
    """Make the job that maps the plane in view, ready for requests.

    Parameters
    ----------
    run : PhaseRun
        What is mapped.
    config : RatioConfig
        How regular phases are to be.
    hints : PhaseHints, optional
        What the network is told; then it is asked without, too.

    Returns
    -------
    callable
        ``job(progress, should_stop)``; returns `RatioGuides`.
    """

    def job(progress: ProgressCallback, should_stop: StopCallback) -> RatioGuides:
        segmenter = run.segmenter(run.planes[0]).get()
        embeddings: WindowEmbeddings | None = None if hints is None else {}

        def guide(told: PhaseHints | None) -> RatioGuide:
            made = map_for_ratio(
                segmenter, run, config,
                progress=progress, should_stop=should_stop, hints=told, embeddings=embeddings,
            )  # fmt: skip
            # Here, not at the first touch of a slider.
            _ = made.coarse_solver
            return made

        untold = guide(None)
        return RatioGuides(untold if hints is None else guide(hints), untold)

    return job


def map_for_ratio(
    segmenter: Segmenter,
    run: PhaseRun,
    config: RatioConfig,
    *,
    progress: ProgressCallback,
    should_stop: StopCallback,
    hints: PhaseHints | None = None,
    embeddings: WindowEmbeddings | None = None,
) -> RatioGuide:
    """Map the phases of a plane, ready for requests; see `phasesam.segment_classes`."""
    from phasesam.engines.ratio_guidance import RatioGuide
    from phasesam.engines.semantic import segment_classes

    found = segment_classes(
        segmenter,
        config=run.config,
        keep_probabilities=True,
        progress=progress,
        should_stop=should_stop,
        embeddings=embeddings,
        hints=hints,
    )
    rgb = segmenter.rgb
    # A segmenter leaves the data bar out.
    missing = found.labels.shape[0] - rgb.shape[0]
    whole = np.pad(rgb, [(0, missing), (0, 0), (0, 0)]) if missing else rgb
    return RatioGuide(found, whole, config)
