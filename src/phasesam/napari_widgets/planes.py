"""Which plane of an image the viewer shows, for 2-D images, stacks, RGB, pyramids and lazy data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import UnsupportedViewError
from phasesam.napari_widgets.layers import world_to_data

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


@dataclass(frozen=True)
class ShownPlane:
    """One (y, x) plane of an image.

    Attributes
    ----------
    index : tuple of int
        Position on the leading axes of the layer; empty for a 2-D image.
    shape : (int, int)
        Height and width in pixels.
    """

    index: tuple[int, ...]
    shape: tuple[int, int]

    def at(self, point_yx: NDArray[Any]) -> NDArray[np.float64]:
        """Put ``(y, x)`` positions, (n, 2) or (2,), onto this plane: (n, ndim) or (ndim,)."""
        points = np.asarray(point_yx, dtype=np.float64)
        leading = np.broadcast_to(
            np.asarray(self.index, dtype=np.float64), (*points.shape[:-1], len(self.index))
        )
        return np.concatenate([leading, points], axis=-1)

    def holds(self, points: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the (n, ndim) data positions lie on this plane, (n,) bool."""
        points = np.asarray(points, dtype=np.float64)
        leading = np.rint(points[:, : len(self.index)])
        return np.asarray((leading == np.asarray(self.index)).all(axis=1))


def full_resolution(layer: Layer) -> Any:
    """Return the layer's array at full resolution, still lazy if it was."""
    return layer.data[0] if layer.multiscale else layer.data


def spatial_shape(layer: Layer) -> tuple[int, ...]:
    """Shape ``(..., h, w)`` of the layer without the colour axis."""
    return tuple(int(n) for n in full_resolution(layer).shape[: layer.ndim])


def shown_plane(viewer: ViewerModel, layer: Image) -> ShownPlane:
    """Find the plane of ``layer`` that the viewer shows now.

    Nothing is read or computed. A view with y and x swapped is fine, since prompts
    and masks are in data coordinates.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer, in 2-D display.
    layer : napari.layers.Image
        Any image: grey or RGB, 2-D to n-D, multiscale, dask.

    Raises
    ------
    UnsupportedViewError
        If the viewer shows a volume, a cut across other axes than the last two, or
        the layer has fewer than two axes.
    """
    if viewer.dims.ndisplay != 2:
        raise UnsupportedViewError(
            "The viewer shows a volume in 3-D. Switch to the 2-D view (button at the lower left) "
            "to segment plane by plane."
        )
    shape = spatial_shape(layer)
    if len(shape) < 2:
        raise UnsupportedViewError(
            f"An image has at least two axes; {layer.name!r} has {len(shape)}."
        )
    # Layers are aligned to the last axes of the viewer.
    offset = viewer.dims.ndim - layer.ndim
    shown = sorted(axis - offset for axis in viewer.dims.displayed[-2:])
    if shown != [layer.ndim - 2, layer.ndim - 1]:
        raise UnsupportedViewError(
            f"The viewer shows a cut across other axes than the last two of {layer.name!r}. "
            "Press the 'roll dimensions' button until the image itself is shown."
        )
    here = world_to_data(viewer, layer, viewer.dims.point)
    index = tuple(
        int(np.clip(np.rint(here[axis]), 0, shape[axis] - 1)) for axis in range(len(shape) - 2)
    )
    return ShownPlane(index=index, shape=(shape[-2], shape[-1]))


def read_plane(layer_data: Any, plane: ShownPlane) -> NDArray[Any]:
    """Read one plane, (h, w) or (h, w, 3 or 4); lazy data is computed here and only here."""
    return np.asarray(layer_data[plane.index] if plane.index else layer_data)
