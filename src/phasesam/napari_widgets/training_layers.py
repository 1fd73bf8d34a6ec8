"""Which images and labels of a viewer a model may learn from, and what is in the labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
import xxhash
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
IMAGE_ID = "image_id"
"""Key in the metadata of such a layer: `unique_id` of its image, which renaming leaves alone."""
_MOST_VALUES = 65
_COUNTABLE = 1 << 20
_SAME_PIXEL = 0.5

Places = dict[Layer, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Where layers are, see `_placement`, while none of them moves."""


@dataclass(frozen=True)
class LabelScan:
    """What a Labels layer holds.

    Attributes
    ----------
    planes : tuple of tuple of int
        Planes where anything is labelled.
    values : tuple of int
        Values above 0; not all of them if there are more than can be classes.
    key : str
        Hash of these planes: whether anything was changed.
    """

    planes: tuple[Plane, ...] = ()
    values: tuple[int, ...] = ()
    key: str = ""


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
    digest = xxhash.xxh3_64()
    for plane in np.ndindex(tuple(labels.shape[:-2])):
        if should_stop is not None and should_stop():
            raise CancelledError("looking at the labels was stopped")
        content = np.asarray(labels[plane])
        if content.size == 0 or content.max() <= 0:
            continue
        planes.append(plane)
        digest.update(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
        if len(values) < _MOST_VALUES:
            found = values_in(content)
            values.update(int(value) for value in found[found > 0][:_MOST_VALUES])
    return LabelScan(tuple(planes), tuple(sorted(values)), digest.hexdigest())


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


class Signs(NamedTuple):
    """What says that an image is that of some labels; what comes first counts more.

    Attributes
    ----------
    is_theirs : bool
        Their objects are those of the image, or they were made on it.
    is_named : bool
        They were made on an image of this name.
    name_length : int
        How much of their name is the name of the image.
    """

    is_theirs: bool
    is_named: bool
    name_length: int


@dataclass(eq=False)
class LabelChoice:
    """What is known and chosen about one Labels layer.

    Attributes
    ----------
    ticked : bool
        Whether to learn from it.
    is_touched : bool
        Whether the user ticked it, or took the tick away.
    image : weak reference to Image, or None
        The image they are those of.
    signs : Signs or None
        What said so, when it became theirs: it may be renamed later.
    is_chosen : bool
        Whether the user chose that image.
    dropped : frozenset of tuple of int
        Planes with labels that are not to be learnt from.
    scan : LabelScan or None
        What it holds; None until a worker has looked.
    is_old : bool
        Whether it was painted on since.
    """

    ticked: bool = False
    is_touched: bool = False
    image: ref[Image] | None = None
    signs: Signs | None = None
    is_chosen: bool = False
    dropped: frozenset[Plane] = field(default_factory=frozenset)
    scan: LabelScan | None = None
    is_old: bool = True

    @property
    def image_now(self) -> Image | None:
        """The image they are those of, unless it has gone."""
        return None if self.image is None else self.image()


def signs_of(state: ViewerState, labels: Labels, image: Image) -> Signs:
    """Find what says that labels are those of an image; their place is another matter."""
    session, own = session_behind(labels.metadata), labels.metadata.get(OWN, {})
    is_theirs = own.get(IMAGE_ID) == str(image.unique_id) or (
        session is not None and state.has_session(image) and state.session(image) is session
    )
    # What PhaseSAM made knows its image; its name only seems to tell another one.
    is_prefix = "image" not in own and labels.name.startswith(image.name)
    return Signs(is_theirs, own.get("image") == image.name, len(image.name) if is_prefix else 0)


def images_for(state: ViewerState, labels: Labels, places: Places | None = None) -> list[Image]:
    """Images that labels may belong to: those of the same shape, the most likely one first.

    Whoever asks for many labels at once gives `places`, for napari is slow to say them.
    """
    known: Places = {} if places is None else places
    shape = spatial_shape(labels)
    fitting = [image for image in state.images() if spatial_shape(image) == shape]
    fitting.sort(key=lambda image: image is state.image_layer, reverse=True)
    signs = {image: signs_of(state, labels, image) for image in fitting}
    if any(any(found) for found in signs.values()):
        return sorted(fitting, key=lambda image: signs[image], reverse=True)
    return sorted(fitting, key=lambda image: lies_on(labels, image, known), reverse=True)


def lies_on(labels: Labels, image: Image, places: Places | None = None) -> bool:
    """Whether each pixel of labels lies on that pixel of an image of the same shape.

    Labels that nobody ever put anywhere, such as a mask read from a PNG file, lie on an
    image at the origin even if the image is calibrated.
    """
    known: Places = {} if places is None else places
    for layer in (labels, image):
        if layer not in known:
            known[layer] = _placement(layer)
    (origin, steps), (image_origin, image_steps) = known[labels], known[image]
    ratios = _unit_ratios(labels, image)
    together = np.array_equal(origin, image_origin) and np.array_equal(steps, image_steps)
    if together and (ratios == 1).all():
        return True
    identity = np.eye(labels.ndim)
    if np.array_equal(steps, identity) and not origin.any() and not image_origin.any():
        scale = np.diag(image_steps)
        if (scale > 0).all() and np.allclose(image_steps, np.diag(scale)):
            return True
    corners = np.array(list(itertools.product(*((0, n - 1) for n in spatial_shape(labels)))))
    world = (origin + corners @ steps) * ratios
    pixels = (world - image_origin) @ np.linalg.inv(image_steps)
    return bool((np.abs(pixels - corners) <= _SAME_PIXEL).all())


def _placement(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World position of the first pixel, (n,), and the step along each axis, (n, n)."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), np.float64)
    ends = [layer.data_to_world(end) for end in np.eye(layer.ndim)]
    return origin, np.asarray(ends, np.float64) - origin


def _unit_ratios(labels: Labels, image: Image) -> NDArray[np.float64]:
    """How many units of the image one unit of the labels is, (n,); 1 where napari ignores them."""
    return np.array(_ratios(tuple(labels.units), tuple(image.units)))


@lru_cache(maxsize=256)
def _ratios(mine: tuple[Any, ...], its: tuple[Any, ...]) -> tuple[float, ...]:
    units = list(zip(mine, its, strict=True))
    if any(not a.is_compatible_with(b) for a, b in units):
        return (1.0,) * len(units)
    return tuple(1.0 if a == b else float((1 * a).to(b).magnitude) for a, b in units)


def doubt_about(state: ViewerState, labels: Labels, image: Image) -> str:
    """Say what speaks against labels being those of an image: "do not lie …"; mostly nothing."""
    signs, own = signs_of(state, labels, image), labels.metadata.get(OWN, {})
    if signs.is_theirs or signs.is_named:
        return ""
    if "image" in own:
        return f"were made for the image {own['image']!r}"
    if lies_on(labels, image):
        return ""
    return f"do not lie on the image {image.name!r} in the viewer"


def misfit_text(state: ViewerState, labels: Labels, lost: Image | None = None) -> str:
    """Say that no image has the size of some labels.

    Parameters
    ----------
    state : ViewerState
        With the images.
    labels : Labels
        What fits none of them.
    lost : Image, optional
        The image that they were those of while it had their size, perhaps gone by now.
    """
    shape = spatial_shape(labels)
    text = f"Labels {labels.name!r} is {_size_text(shape)}"
    if lost is not None and lost in state.images():
        return f"{text}; its image {lost.name!r} is {_size_text(spatial_shape(lost))}."
    # A plane beside a stack, or the other way round, is what is easily overlooked.
    near = [image for image in state.images() if spatial_shape(image)[-2:] == shape[-2:]]
    why = f": {near[0].name!r} is {_size_text(spatial_shape(near[0]))}" if near else ""
    return f"{text}; no image has this size{why}."


def _size_text(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def object_classes(labels: Labels) -> Mapping[int, str] | None:
    """Class names of committed objects by id; None for layers that are no committed objects."""
    session = session_behind(labels.metadata)
    if session is None:
        return None
    return {record.id: record.class_name for record in session.objects}
