"""Which images and labels of a viewer a model may learn from, and what is in the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets.committed_labels import SESSION, session_behind
from phasesam.napari_widgets.layers import OWN, is_own
from phasesam.napari_widgets.planes import spatial_shape

if TYPE_CHECKING:
    from phasesam.core.types import StopCallback
    from phasesam.napari_widgets.viewer_state import ViewerState

Plane = tuple[int, ...]
LEARNABLE = "phases"
"""Mark in the metadata of a layer that PhaseSAM made, and that users correct and learn from."""
_MOST_VALUES = 65
_COUNTABLE = 1 << 20


@dataclass(frozen=True)
class LabelScan:
    """What a Labels layer holds.

    Attributes
    ----------
    planes : tuple of tuple of int
        Planes where anything is labelled.
    values : tuple of int
        Values above 0; not all of them if there are more than can be classes.
    """

    planes: tuple[Plane, ...] = ()
    values: tuple[int, ...] = ()


def scan_labels(labels: Any, should_stop: StopCallback | None = None) -> LabelScan:
    """Look at every plane of a label array; for workers.

    Parameters
    ----------
    labels : (..., h, w) integer array
        Possibly lazy; it is read plane by plane.
    should_stop : callable, optional
        Asked before each plane.

    Raises
    ------
    CancelledError
        If ``should_stop()`` is true.
    """
    planes: list[Plane] = []
    values: set[int] = set()
    for plane in np.ndindex(tuple(labels.shape[:-2])):
        if should_stop is not None and should_stop():
            raise CancelledError("looking at the labels was stopped")
        content = np.asarray(labels[plane])
        if content.size == 0 or content.max() <= 0:
            continue
        planes.append(plane)
        if len(values) < _MOST_VALUES:
            found = values_in(content)
            values.update(int(value) for value in found[found > 0][:_MOST_VALUES])
    return LabelScan(tuple(planes), tuple(sorted(values)))


def values_in(labels: NDArray[Any]) -> NDArray[Any]:
    """Values of an integer array, rising; counting is much faster than sorting."""
    if labels.min() >= 0 and labels.max() < _COUNTABLE:
        return np.flatnonzero(np.bincount(labels.reshape(-1)))
    return np.unique(labels)


def is_learnable(layer: Layer) -> bool:
    """Whether a layer holds labels that somebody may want to learn from.

    Previews and outlines that PhaseSAM draws do not; objects and maps of phases do.
    """
    if not isinstance(layer, Labels) or layer.ndim < 2:
        return False
    own = layer.metadata.get(OWN, {})
    return not is_own(layer) or SESSION in own or LEARNABLE in own


def images_for(state: ViewerState, labels: Labels) -> list[Image]:
    """Images that labels may belong to: those of the same shape, the most likely one first."""
    shape = spatial_shape(labels)
    fitting = [image for image in state.images() if spatial_shape(image) == shape]
    own = labels.metadata.get(OWN, {})

    def likelihood(image: Image) -> tuple[bool, bool, bool]:
        same_place = np.allclose(image.translate, labels.translate)
        named = labels.name.startswith(image.name) or own.get("image") == image.name
        return named, same_place, image is state.image_layer

    return sorted(fitting, key=likelihood, reverse=True)


def object_classes(labels: Labels) -> Mapping[int, str] | None:
    """Class names of committed objects by id; None for layers that are no committed objects."""
    session = session_behind(labels.metadata)
    if session is None:
        return None
    return {record.id: record.class_name for record in session.objects}
