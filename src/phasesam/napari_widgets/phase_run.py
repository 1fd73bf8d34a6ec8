"""Maps the phases of planes in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize
from phasesam.models.manager import get_manager
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.planes import ShownPlane, full_resolution, spatial_shape
from phasesam.napari_widgets.segmenters import LazySegmenter

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.semantic import PhaseMapConfig
    from phasesam.napari_widgets.strength_row import AdapterOnModel
    from phasesam.napari_widgets.viewer_state import ViewerState

Plane = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PhaseRun:
    """What to map, as plain values.

    Attributes
    ----------
    data : (..., h, w) or (..., h, w, 3 or 4) array
        Possibly lazy.
    planes : tuple of tuple of int
        Which planes.
    shape : (int, int)
        Height and width.
    model, adapter : str
        The base, and the adapter with classes.
    normalisation, exclude_data_bar, pixel_size
        As for `phasesam.Segmenter`.
    config : PhaseMapConfig
        Windows and orientations.
    with_confidence : bool
        Whether the probability of the class chosen is wanted.
    """

    data: Any
    planes: tuple[Plane, ...]
    shape: tuple[int, int]
    model: str
    adapter: str
    normalisation: Normalisation
    exclude_data_bar: bool
    pixel_size: PixelSize
    config: PhaseMapConfig
    with_confidence: bool = False

    def segmenter(self, plane: Plane) -> LazySegmenter:
        """Make the segmenter of one plane."""
        return LazySegmenter(
            self.data,
            ShownPlane(plane, self.shape),
            model=self.model,
            normalisation=self.normalisation,
            exclude_data_bar=self.exclude_data_bar,
            pixel_size=self.pixel_size,
            adapter=self.adapter,
        )


@dataclass(frozen=True, eq=False)
class PlaneMap:
    """The phases of one plane.

    Attributes
    ----------
    plane : tuple of int
        Which.
    values : (h, w) uint8 array
        Index of the class plus 1; 0 in the data bar.
    confidence : (h, w) float32 array or None
        Probability of the class chosen.
    """

    plane: Plane
    values: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None


def run_on(
    state: ViewerState, image: Image, on: AdapterOnModel, config: PhaseMapConfig, **changes: Any
) -> PhaseRun:
    """Describe the mapping of the plane in view; `changes` are other fields of a `PhaseRun`.

    Raises
    ------
    UnsupportedViewError
        If the viewer shows no plane of the image.
    """
    shape, settings = spatial_shape(image), state.settings(image)
    planes = changes.pop("planes", None) or (state.plane(image).index,)
    return PhaseRun(
        full_resolution(image),
        planes,
        (shape[-2], shape[-1]),
        on.model,
        on.adapter,
        settings.normalisation,
        settings.exclude_data_bar,
        pixel_size(image),
        config,
        **changes,
    )


def layer_values(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn indices of classes into values of a Labels layer: one more; 0 is the data bar."""
    from phasesam.engines.semantic import NO_CLASS

    return np.where(labels == NO_CLASS, np.uint8(0), labels + np.uint8(1))


def mapping_job(run: PhaseRun, send: Callable[[PlaneMap], None]) -> Callable[..., int]:
    """Make the job for a worker.

    Parameters
    ----------
    run : PhaseRun
        What to map.
    send : callable
        Called with each `PlaneMap` as soon as it is there, in the worker.

    Returns
    -------
    callable
        ``job(progress, should_stop)``; returns the number of planes.
    """

    def job(progress: ProgressCallback, should_stop: StopCallback) -> int:
        from phasesam.engines.semantic import segment_classes

        # One strength and one file for all planes, whatever is changed meanwhile.
        version = get_manager().adapter_version(run.model, run.adapter)
        for number, plane in enumerate(run.planes):
            if should_stop():
                raise CancelledError("mapping phases was stopped")

            def report(done: int, total: int, before: int = number) -> None:
                progress(before * total + done, len(run.planes) * total)

            found = segment_classes(
                run.segmenter(plane).get(),
                version,
                config=run.config,
                keep_probabilities=run.with_confidence,
                progress=report,
                should_stop=should_stop,
            )
            send(PlaneMap(plane, layer_values(found.labels), found.confidence))
        return len(run.planes)

    return job
