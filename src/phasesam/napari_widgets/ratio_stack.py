"""One ratio for a whole stack: every plane is mapped, then all are solved together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, InvalidImageError
from phasesam.core.images import is_constant
from phasesam.core.ratio import IMPLAUSIBLE
from phasesam.napari_widgets.phase_models import class_colours
from phasesam.napari_widgets.phase_run import PhaseRun, Plane, layer_values
from phasesam.napari_widgets.planes import ShownPlane, read_plane
from phasesam.napari_widgets.ratio_run import map_for_ratio
from phasesam.napari_widgets.ratio_words import percent, request_text
from phasesam.session.ratio_sheet import WHOLE, RatioQuery

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.ratio_shares import PhaseShares
    from phasesam.core.ratio_volume import VolumeRatio
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide
    from phasesam.napari_widgets.ratio_layers import RatioLayers
    from phasesam.napari_widgets.ratio_plane import MappedPlane
    from phasesam.napari_widgets.ratio_results import RatioResults

# Mapping takes most of the time: solving reads all maps three times only.
_MAPPING, _STEPS = 0.95, 1000


@dataclass(frozen=True, eq=False)
class StackAnswer:
    """What a request comes to on a stack.

    Attributes
    ----------
    values : (..., h, w) uint8 array
        Index of the class plus 1; 0 in data bars and in planes without contrast.
    own : (K,) float64 array
        Shares as the model sees them.
    solution : VolumeRatio
        What was achieved.
    config : RatioConfig
        What was wished beside the shares.
    n_planes, n_blank : int
        How many planes were mapped, and how many hold nothing.
    """

    values: NDArray[np.uint8]
    own: NDArray[np.float64]
    solution: VolumeRatio
    config: RatioConfig
    n_planes: int
    n_blank: int

    def text(self, classes: tuple[str, ...]) -> str:
        """Say in words what came of it."""
        found = self.solution
        shares = zip(classes, found.achieved, strict=True)
        amounts = ", ".join(f"{name} {100 * share:.2f}\u00a0%" for name, share in shares)
        text = f"{self.n_planes} planes: {amounts}; {percent(found.changed)} of the pixels changed."
        if self.n_blank:
            planes = "1 plane" if self.n_blank == 1 else f"{self.n_blank} planes"
            text += f" Left out: {planes} without contrast."
        if found.contradicted >= IMPLAUSIBLE:
            text += f" Doubtful: contradicts the images in {percent(found.contradicted)} of them."
        return text


def stack_job(run: PhaseRun, config: RatioConfig, query: RatioQuery) -> Callable[..., StackAnswer]:
    """Make the job that maps all planes of a run and solves one ratio for all of them.

    Parameters
    ----------
    run : PhaseRun
        What is mapped.
    config : RatioConfig
        How regular phases are to be.
    query : RatioQuery
        What is asked of the whole stack.

    Returns
    -------
    callable
        ``job(progress, should_stop)``; returns a `StackAnswer`.
    """

    def job(progress: ProgressCallback, should_stop: StopCallback) -> StackAnswer:
        from phasesam.engines.ratio_stack import RatioStack

        n_values = len(run.planes) * len(query.fractions[WHOLE]) * math.prod(run.shape)
        with RatioStack(n_values) as stack:
            # Fractions as the model sees them, and pixels, by plane.
            own: dict[Plane, tuple[NDArray[np.float64], int]] = {}
            for number, plane in enumerate(run.planes):
                if should_stop():
                    raise CancelledError("mapping the stack was stopped")
                part = number / len(run.planes), 1 / len(run.planes)
                report = _part_of(progress, part[0] * _MAPPING, part[1] * _MAPPING)
                guide = _map_plane(run, plane, config, report, should_stop)
                if guide is not None:
                    stack.add(guide)
                    own[plane] = guide.fractions, guide.solver.own.size
            if not own:
                raise InvalidImageError("all pixels of each plane are equal: nothing to map")
            values = np.zeros((*np.max(run.planes, axis=0) + 1, *run.shape), np.uint8)
            mapped = list(own)

            def write(number: int, labels: NDArray[np.uint8]) -> None:
                values[mapped[number]] = layer_values(labels)

            solution = stack.solve(
                query.fractions[WHOLE], query.errors[WHOLE], write=write,
                progress=_part_of(progress, _MAPPING, 1 - _MAPPING), should_stop=should_stop,
            )  # fmt: skip
        # Data bars may leave some planes fewer pixels than others.
        fractions, pixels = zip(*own.values(), strict=True)
        shares = np.average(fractions, axis=0, weights=pixels)
        n_blank = len(run.planes) - len(own)
        return StackAnswer(values, shares, solution, config, len(own), n_blank)

    return job


def _part_of(progress: ProgressCallback, begin: float, share: float) -> ProgressCallback:
    """Tell the progress of a part as that of the whole."""
    return lambda done, total: progress(round(_STEPS * (begin + share * done / total)), _STEPS)


def _map_plane(
    run: PhaseRun,
    plane: Plane,
    config: RatioConfig,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> RatioGuide | None:
    """Map one plane; None if it has no contrast."""
    if is_constant(read_plane(run.data, ShownPlane(plane, run.shape))):
        return None
    segmenter = run.segmenter(plane).get()
    return map_for_ratio(segmenter, run, config, progress=progress, should_stop=should_stop)


def show_stack(
    answer: StackAnswer,
    asked: tuple[Image, MappedPlane, PhaseShares],
    layers: RatioLayers,
    results: RatioResults,
) -> str:
    """Show and log what came of a request; also say it in words.

    Parameters
    ----------
    answer : StackAnswer
        What came of it.
    asked : tuple
        The image, the plane that the sliders are about, and the shares when the work began.
    layers : RatioLayers
        Show it.
    results : RatioResults
        Keep the log.
    """
    image, mapped, shares = asked
    names = mapped.card.classes
    # Who has gone on to other shares is not to lose sight of them.
    is_asked = mapped.sheet.shares(WHOLE).request == shares.request
    corrected = layers.show_stack(
        image,
        (names, class_colours(mapped.card)),
        answer.values,
        name=f"{image.name} whole stack {request_text(shares)}",
        shares=(answer.solution.achieved, answer.own),
        visible=is_asked,
    )
    wanted, errors = shares.request
    results.note_stack(image.name, mapped, RatioQuery({WHOLE: wanted}, {WHOLE: errors}), answer)
    text = answer.text(names)
    if corrected:
        text += " The maps that you corrected were left as they are."
    return text if is_asked else f"{text} The maps are in a hidden layer."
