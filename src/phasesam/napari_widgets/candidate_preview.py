"""Preview layers of automatic masks: one plane, painted in place, never part of the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from phasesam.napari_widgets.layers import place
from phasesam.napari_widgets.plane_layer import plane_geometry

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_OUTLINE = 2  # pixels
_UNCOVERED = "#E69F00"  # Okabe-Ito orange: part of no mask


class CandidatePreview:
    """Labels layer with the masks that the sliders leave, and one with what they miss.

    Both hold a single plane that lies at its place in the stack, so that a preview of
    one slice of a large volume costs one slice.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layers.
    image : napari.layers.Image
        Whose masks they are.
    plane : tuple of int
        Position on the leading axes of the image.
    shape : (int, int)
        Height and width of the plane.
    """

    def __init__(
        self, viewer: ViewerModel, image: Image, plane: tuple[int, ...], shape: tuple[int, int]
    ) -> None:
        self._viewer = ref(viewer)
        self._image = ref(image)
        self._plane = plane
        self.painted = np.zeros(shape, np.uint8)
        self.uncovered = np.zeros(shape, np.uint8)
        self.layer: Labels | None = None
        self.uncovered_layer: Labels | None = None
        self._outlined = False

    @property
    def visible(self) -> bool:
        """Whether the masks are in the viewer and shown."""
        return self._shows(self.layer) and self.layer is not None and self.layer.visible

    def _shows(self, layer: Labels | None) -> bool:
        viewer = self._viewer()
        return viewer is not None and layer is not None and layer in viewer.layers

    def show(self) -> None:
        """Show what was painted; a layer that the user removed comes back."""
        if self.layer is None or not self._shows(self.layer):
            self.layer = self._add(self.painted, "found masks", opacity=0.55)
        elif self.layer.visible:
            self.layer.refresh(extent=False, thumbnail=False)
        else:
            self.layer.visible = True

    def show_uncovered(self, shown: bool) -> None:
        """Show or hide where no mask lies."""
        if not shown:
            # Removing a layer takes napari seconds in a large session.
            if self.uncovered_layer is not None and self.uncovered_layer.visible:
                self.uncovered_layer.visible = False
        elif self.uncovered_layer is None or not self._shows(self.uncovered_layer):
            self.uncovered_layer = self._add(
                self.uncovered,
                "uncovered",
                opacity=0.45,
                colormap=DirectLabelColormap(color_dict={1: _UNCOVERED, None: "transparent"}),
            )
        elif self.uncovered_layer.visible:
            self.uncovered_layer.refresh(extent=False, thumbnail=False)
        else:
            self.uncovered_layer.visible = True

    def outline(self, outlined: bool) -> None:
        """Draw outlines instead of filled masks."""
        self._outlined = outlined
        if self.layer is not None:
            self.layer.contour = _OUTLINE if outlined else 0

    def move_to(self, plane: tuple[int, ...], shape: tuple[int, int]) -> bool:
        """Show masks of another search from now on, if the layers have room for them.

        To take layers away and to add others would hold up napari for half a second.

        Returns
        -------
        bool
            False when the plane is of another shape; nothing has changed then.
        """
        image = self._image()
        if image is None or shape != self.painted.shape or len(plane) != len(self._plane):
            return False
        self._plane = plane
        for layer in (self.layer, self.uncovered_layer):
            if layer is not None and self._shows(layer):
                place(layer, plane_geometry(image, plane))
        return True

    def remove(self) -> None:
        """Take both layers out of the viewer."""
        for layer in (self.layer, self.uncovered_layer):
            self._remove(layer)
        self.layer = self.uncovered_layer = None

    def _remove(self, layer: Labels | None) -> None:
        viewer = self._viewer()
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def _add(self, plane: NDArray[np.uint8], name: str, **options: Any) -> Labels | None:
        image, viewer = self._image(), self._viewer()
        if image is None or viewer is None:
            return None
        active = viewer.layers.selection.active
        layer = Labels(
            plane[(np.newaxis,) * len(self._plane)],
            name=f"{image.name} {name}",
            **options,
            **plane_geometry(image, self._plane),
        )
        # In the viewer, each of these would be drawn once more.
        layer.contour = _OUTLINE if self._outlined and plane is self.painted else 0
        layer.editable = False
        viewer.add_layer(layer)
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        return layer
