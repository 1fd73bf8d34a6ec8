"""Region of interest from shapes that the user draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from phasesam.core.errors import InvalidPromptError
from phasesam.napari_widgets.layers import like

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

_COLOUR = "#009E73"  # Okabe-Ito bluish green
_CIRCLE = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)


def add_region_layer(viewer: ViewerModel, image: Image) -> Shapes:
    """Add an empty Shapes layer on ``image``, ready to draw a polygon with the mouse."""
    layer = viewer.add_shapes(
        ndim=image.ndim,
        name=f"{image.name} region",
        edge_color=_COLOUR,
        face_color="#009e7320",
        edge_width=2,
        **like(image),
    )
    viewer.layers.selection.active = layer
    layer.mode = "add_polygon"
    return layer


def region_mask(
    shapes: Shapes, plane: tuple[int, ...], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Fill the closed shapes of a layer.

    Parameters
    ----------
    shapes : napari.layers.Shapes
        Polygons, rectangles and ellipses in data coordinates of the image. In a stack a
        region drawn on one plane counts on every plane.
    plane : tuple of int
        The plane to segment.
    shape : (int, int)
        Height and width of the plane.

    Returns
    -------
    (h, w) bool array

    Raises
    ------
    InvalidPromptError
        If nothing closed was drawn, or only outside of the image.
    """
    drawn = list(zip(shapes.data, shapes.shape_type, strict=True))
    closed = [(corners, kind) for corners, kind in drawn if kind not in ("line", "path")]
    # Shapes on this very plane win; without any the region holds for all planes.
    here = [(c, k) for c, k in closed if _on_plane(c, plane)]
    mask = np.zeros(shape, dtype=np.bool_)
    for corners, kind in here or closed:
        mask |= polygon2mask(shape, _outline(np.asarray(corners)[:, -2:], kind))
    if not closed:
        raise InvalidPromptError(
            f"Draw a polygon, rectangle or ellipse in the layer {shapes.name!r} first."
        )
    if not mask.any():
        raise InvalidPromptError(f"The region in {shapes.name!r} lies outside of the image.")
    return mask


def _on_plane(corners: Any, plane: tuple[int, ...]) -> bool:
    leading = np.rint(np.asarray(corners)[:, : len(plane)])
    return bool((leading == np.asarray(plane)).all())


def _outline(corners: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    if kind != "ellipse":
        return corners
    # napari keeps the corners of the surrounding, possibly rotated, rectangle.
    centre = corners.mean(axis=0)
    first, second = (corners[1] - corners[0]) / 2.0, (corners[3] - corners[0]) / 2.0
    return centre + np.outer(np.cos(_CIRCLE), first) + np.outer(np.sin(_CIRCLE), second)
