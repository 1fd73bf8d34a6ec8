"""Where a layer that holds a part of one plane lies in the stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from phasesam.napari_widgets.layers import like

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def plane_geometry(
    image: Layer, plane: tuple[int, ...], corner_yx: tuple[float, float] = (0, 0)
) -> dict[str, Any]:
    """Geometry of a layer of shape ``(1, ..., 1, h, w)`` that lies on one plane of an image.

    Parameters
    ----------
    image : napari.layers.Layer
        The image.
    plane : tuple of int
        Position on the leading axes.
    corner_yx : (float, float), optional
        Where in the plane the layer's first pixel lies.

    Returns
    -------
    dict
        As `like`, with ``translate`` moved.
    """
    options = like(image)
    linear = Affine(rotate=image.rotate, scale=image.scale, shear=image.shear).linear_matrix
    options["translate"] = np.asarray(image.translate) + linear @ np.array([*plane, *corner_yx])
    return options


def show_point(viewer: ViewerModel, layer: Layer, point: Any, extent: float = 0.0) -> None:
    """Bring a position of a layer to the middle of the canvas, and its plane up.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    layer : napari.layers.Layer
        The layer that ``point`` belongs to.
    point : (layer.ndim,) array-like of float
        Position in pixels of ``layer``.
    extent : float, optional
        Size of what is to be seen there, in pixels of the layer; the view is zoomed in
        when that would be a dot and out when it would not fit.
    """
    world = np.asarray(layer.data_to_world(np.asarray(point, dtype=np.float64)), dtype=np.float64)
    factors = np.ones(layer.ndim)
    if viewer.layers.units is not None:
        # napari's own conversion (0.9) leaves the units out.
        factors = np.array(
            [
                (1 * own).to(shared).magnitude
                for shared, own in zip(viewer.layers.units[-layer.ndim :], layer.units, strict=True)
            ]
        )
    world = world * factors
    offset = viewer.dims.ndim - layer.ndim
    shown = viewer.dims.displayed
    hidden = [axis for axis in range(offset, viewer.dims.ndim) if axis not in shown]
    if hidden:
        viewer.dims.set_point(hidden, [float(world[axis - offset]) for axis in hidden])
    camera = viewer.scene.camera
    centre = list(camera.center)
    for place, axis in zip(range(-len(shown), 0), shown, strict=True):
        if axis >= offset:
            centre[place] = float(world[axis - offset])
    camera.center = tuple(centre)
    if extent > 0:
        on_screen = extent * abs(float(layer.scale[-1] * factors[-1])) * camera.zoom
        canvas = float(min(viewer.canvas.size))
        if on_screen < 16:
            camera.zoom *= min(60.0, canvas / 4) / on_screen
        elif on_screen > canvas:
            camera.zoom *= 0.8 * canvas / on_screen
