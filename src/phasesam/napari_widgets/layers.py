"""Geometry that layers share: everything PhaseSAM adds lies exactly on its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from phasesam.core.types import PixelSize

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
OWN = "phasesam"


def like(layer: Layer) -> dict[str, Any]:
    """Keyword arguments that put a new layer exactly onto ``layer``.

    Units are copied too: a layer in pixels beside one in micrometres would make
    napari ignore the units of both. The layer is also marked as made by PhaseSAM,
    so that it is never offered as an image to segment.

    Parameters
    ----------
    layer : napari.layers.Layer
        The image that the new layer belongs to. For RGB images the colour axis
        does not count: the new layer has ``layer.ndim`` dimensions.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units``,
        ``axis_labels`` and ``metadata``, for ``viewer.add_labels(data, **like(image))``.
    """
    return {name: getattr(layer, name) for name in _GEOMETRY} | {
        "metadata": {OWN: {"image": layer.name, "image_id": str(layer.unique_id)}}
    }


def put_onto(layer: Layer, image: Layer) -> None:
    """Put a layer that was made with `like` onto its image again, which may have been scaled."""
    place(layer, like(image))


def place(layer: Layer, geometry: Mapping[str, Any]) -> None:
    """Put a layer where one made with ``geometry`` would lie; nothing is set that is so already.

    Parameters
    ----------
    layer : napari.layers.Layer
        Is moved.
    geometry : mapping
        As `like` gives it; ``metadata`` do not count.
    """
    for name in _GEOMETRY:
        if not _equal(getattr(layer, name), geometry[name]):
            setattr(layer, name, geometry[name])


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Affine):
        one, other = one.affine_matrix, other.affine_matrix
    return np.array_equal(np.asarray(one), np.asarray(other))


def like_plane(layer: Layer) -> dict[str, Any]:
    """Keyword arguments that put a new two-dimensional layer onto the planes of ``layer``.

    napari aligns layers to the last axes, so such a layer lies on every plane of a stack.
    """
    axes = [layer.ndim - 2, layer.ndim - 1]
    geometry = like(layer)
    for name in ("scale", "translate", "units", "axis_labels"):
        geometry[name] = geometry[name][-2:]
    # napari keeps rotation as a matrix, and shear as the upper triangle of one, row by row.
    geometry["rotate"] = np.asarray(layer.rotate)[-2:, -2:]
    shear = np.asarray(layer.shear)
    geometry["shear"] = shear[-2:, -2:] if shear.ndim == 2 else shear[-1:]
    geometry["affine"] = layer.affine.set_slice(axes)
    return geometry


def is_own(layer: Layer) -> bool:
    """Whether PhaseSAM made this layer (with `like`)."""
    return OWN in layer.metadata


def world_to_data(
    viewer: ViewerModel, layer: Layer, point: Sequence[float] | NDArray[Any]
) -> NDArray[np.float64]:
    """Turn a position in the viewer into one in the layer's data, units included.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer whose world coordinates ``point`` is in.
    layer : napari.layers.Layer
        The layer to look at.
    point : (viewer.dims.ndim,) array-like of float
        Position in world coordinates, in the smallest unit of all layers.

    Returns
    -------
    (layer.ndim,) float64 array
        Position in pixels of ``layer``; whole numbers are pixel centres.
    """
    position = np.asarray(point, dtype=np.float64)[-layer.ndim :]
    # napari's own conversion (0.9) leaves the units out.
    world_units = viewer.layers.units
    if world_units is not None:
        position = position * [
            (1 * world).to(own).magnitude
            for world, own in zip(world_units[-layer.ndim :], layer.units, strict=True)
        ]
    return np.asarray(layer.world_to_data(position), dtype=np.float64)


def pixel_size(layer: Layer) -> PixelSize:
    """Size of one pixel of the last two axes, in micrometres if the layer has a length unit."""
    y, x = axis_lengths(layer.scale, layer.units)[-2:]
    return PixelSize() if y is None or x is None else PixelSize(y=y, x=x, unit="um")


def axis_lengths(scale: Sequence[float], units: Sequence[Any]) -> list[float | None]:
    """Length of one step along each axis in micrometres, None where the unit is no length."""
    lengths: list[float | None] = []
    for step, unit in zip(scale, units, strict=True):
        is_length = unit.is_compatible_with("um")
        lengths.append(
            float(abs(step)) * float((1 * unit).to("um").magnitude) if is_length else None
        )
    return lengths
