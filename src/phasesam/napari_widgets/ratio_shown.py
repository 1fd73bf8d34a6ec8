"""What the *Phase ratio* dock has on the screen: which map, and how much of each phase it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phasesam.napari_widgets.phase_models import class_colours
from phasesam.napari_widgets.phase_run import layer_values
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.ratio_counting import CountedArea
from phasesam.napari_widgets.ratio_words import request_name

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from phasesam.napari_widgets.ratio_layers import RatioLayers
    from phasesam.napari_widgets.ratio_plane import MappedPlane
    from phasesam.napari_widgets.ratio_regions import RatioRegions
    from phasesam.napari_widgets.ratio_run import RatioAnswer


def show_answer(
    layers: RatioLayers, image: Image, mapped: MappedPlane, answer: RatioAnswer, *, before: bool
) -> None:
    """Show a map that answers a request, or what the model sees ``before`` any."""
    values = layer_values(mapped.guides.untold.own_labels) if before else answer.values
    classes = (mapped.card.classes, class_colours(mapped.card))
    layers.show(image, classes, mapped.plane, values, moves=answer.is_coarse)
    if not answer.is_coarse:
        layers.show_margin(image, mapped.plane, answer.margin)


def shown_shares(
    layers: RatioLayers, image: Image, answer: RatioAnswer, region: int, *, before: bool
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Tell how much there is of each phase on the screen, and how much the model sees, (K,)."""
    stack = layers.stack_shares(image)
    if stack is not None:
        return stack
    own = answer.own.get(region)
    return (own if before else answer.achieved.get(region)), own


def shown_name(
    layers: RatioLayers, image: Image, answer: RatioAnswer, region: int, *, before: bool
) -> str:
    """Name the map on the screen after what was asked of it."""
    query = None if before else answer.task.query
    return layers.stack_name(image) or request_name(image.name, query, region)


def area_of(mapped: MappedPlane, image: Image, regions: RatioRegions) -> CountedArea:
    """Say which pixels the sliders are about; the data bar has no phases."""
    shape, inside = spatial_shape(image), regions.inside()
    pixels = np.ones(shape[-2:], bool) if inside is None else inside.copy()
    pixels[mapped.guides.guide.rows :] = False
    return CountedArea(shape, mapped.plane, pixels, inside is not None)
