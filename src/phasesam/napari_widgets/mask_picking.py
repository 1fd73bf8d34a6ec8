"""Finds the mask under the mouse in any Labels layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from phasesam.core.mask_set import MaskCrop
from phasesam.napari_widgets.layers import is_own, world_to_data
from phasesam.napari_widgets.planes import full_resolution, spatial_shape

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PickedMask:
    """One label of one plane.

    Attributes
    ----------
    layer : napari.layers.Labels
        Where it was found.
    label : int
        Its value.
    crop : MaskCrop
        Its pixels.
    """

    layer: Labels
    label: int
    crop: MaskCrop


def mask_at(
    viewer: ViewerModel, position: Sequence[float] | NDArray[Any], shape: tuple[int, int]
) -> PickedMask | None:
    """Find the mask at a world position in the uppermost visible Labels layer that has one.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    position : (viewer.dims.ndim,) array-like of float
        Position in world coordinates.
    shape : (int, int)
        Height and width that the plane of labels must have.

    Returns
    -------
    PickedMask or None
        None where there is only background. Previews are not looked at.
    """
    for layer in reversed(viewer.layers):
        if not isinstance(layer, Labels) or not layer.visible:
            continue
        if is_own(layer) and not layer.editable:
            continue  # a preview
        found = label_at(viewer, layer, position)
        if found is not None and found[0] and found[1].shape == shape:
            label, plane = found
            return PickedMask(layer, label, MaskCrop.from_array(plane == label))
    return None


def label_at(
    viewer: ViewerModel, layer: Labels, position: Sequence[float] | NDArray[Any]
) -> tuple[int, NDArray[Any]] | None:
    """Find the label at a world position and the (h, w) plane it lies on; None outside."""
    if viewer.dims.ndim < layer.ndim:
        return None
    shape = spatial_shape(layer)
    index = np.rint(world_to_data(viewer, layer, position)).astype(int)
    if len(shape) < 2 or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
        return None
    data = full_resolution(layer)
    leading = tuple(int(i) for i in index[:-2])
    plane = np.asarray(data[leading]) if leading else np.asarray(data)
    return int(plane[index[-2], index[-1]]), plane
