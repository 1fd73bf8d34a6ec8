"""What is known about the automatic masks of an image; outlives the dock that made it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import PhaseSAMError
from phasesam.core.mask_set import MaskSet
from phasesam.napari_widgets.candidate_filter import (
    FoundCandidates,
    Kept,
    apply_filter,
    filter_above_floors,
    largest_overlaps,
    uncovered,
)

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
    from phasesam.napari_widgets.candidate_preview import CandidatePreview
    from phasesam.napari_widgets.segmenters import LazySegmenter
    from phasesam.napari_widgets.viewer_state import ViewerState
    from phasesam.session import SegmentationSession


class AutomaticRun:
    """One image's candidates, their preview, and what was kept of them.

    Attributes
    ----------
    found : FoundCandidates
        What the search gave.
    preview : CandidatePreview
        Shows what the filter leaves.
    config : FilterConfig or None
        The thresholds that were applied last.
    kept : Kept or None
        What they left.
    """

    def __init__(self, found: FoundCandidates, preview: CandidatePreview) -> None:
        self.found = found
        self.preview = preview
        self.config: FilterConfig | None = None
        self.kept: Kept | None = None
        self._session: SegmentationSession | None = None
        self._steps = 0
        self._own_step = -1

    def filter(self, config: FilterConfig) -> Kept:
        """Apply thresholds and show what stays."""
        self.config = config
        self.kept = apply_filter(self.found, config, self.preview.painted)
        self.preview.show()
        return self.kept

    def paint_uncovered(self, shown: bool) -> None:
        """Show or hide what no mask covers."""
        if shown:
            uncovered(self.found, self.preview.painted, self.preview.uncovered)
        self.preview.show_uncovered(shown)

    def commit(self, session: SegmentationSession, replace: bool) -> list[int]:
        """Make objects of the kept masks; keeping twice in a row keeps the second choice."""
        if self._session is not session:
            self._session = session
            session.events.history_changed.connect(self._count_step)
        again = self._own_step == self._steps and session.undo() is not None
        masks = MaskSet(self.found.candidates.shape) if self.kept is None else self.kept.masks
        try:
            ids = session.commit_many(
                masks,
                plane=self.found.plane,
                replace=replace,
                source="automatic",
                min_area=0 if self.config is None else self.config.min_area,
            )
        except PhaseSAMError:
            if again:
                session.redo()
            raise
        self._own_step = self._steps
        return ids

    def _count_step(self) -> None:
        self._steps += 1


_runs: WeakKeyDictionary[ViewerState, WeakKeyDictionary[Image, AutomaticRun]] = WeakKeyDictionary()


def runs_of(state: ViewerState) -> WeakKeyDictionary[Image, AutomaticRun]:
    """Get the last run of each image of a viewer.

    A search takes up to a minute; closing the dock and opening it again must not lose it.
    """
    return _runs.setdefault(state, WeakKeyDictionary())


def search_job(
    segmenter: LazySegmenter,
    config: AutomaticConfig,
    region: NDArray[np.bool_] | None,
    thresholds: FilterConfig,
) -> Callable[..., FoundCandidates]:
    """Make the job for the worker; it knows arrays and the segmenter, but no layer."""

    def job(progress: Any, should_stop: Any) -> FoundCandidates:
        start = time.perf_counter()
        candidates = segmenter.automatic(config, progress=progress, should_stop=should_stop)
        seconds = time.perf_counter() - start
        valid = region
        bar = segmenter.data_bar
        if bar is not None:
            valid = np.ones(candidates.shape, np.bool_) if region is None else region.copy()
            valid[bar:] = False
        # What a first filtering has to compute is kept, so that no slider waits for it.
        filter_above_floors(candidates, thresholds)
        overlaps = largest_overlaps(candidates.boxes, candidates.scores)
        return FoundCandidates(candidates, segmenter.plane.index, valid, seconds, bar, overlaps)

    return job
