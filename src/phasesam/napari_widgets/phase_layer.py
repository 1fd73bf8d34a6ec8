"""The Labels layer with a map of phases, and the layer that says how sure the model was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtGui import QColor

from phasesam.napari_widgets.class_colours import class_features, shows_classes
from phasesam.napari_widgets.layers import OWN, like, put_onto
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.training_layers import LEARNABLE

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from phasesam.napari_widgets.training_layers import Plane
    from phasesam.napari_widgets.viewer_state import ViewerState

_OPACITY = 0.5
_PERCENT = 100


class PhaseLayers:
    """Maps of phases of the images of one viewer.

    The value of a class is its index plus 1; 0 is what was not mapped. A map that the user
    has painted on, or that was given other data, is never written to again: the next one goes to
    a layer of its own.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layers.
    title : str
        What follows the name of the image in that of a map.
    """

    def __init__(self, viewer: ViewerModel, title: str = "phases") -> None:
        self._viewer = ref(viewer)
        self._title = title
        self._maps: WeakKeyDictionary[Image, ref[Labels]] = WeakKeyDictionary()
        self._sureness: WeakKeyDictionary[Labels, ref[Image]] = WeakKeyDictionary()
        self._painted: WeakSet[Labels] = WeakSet()
        self._colours: WeakKeyDictionary[Labels, tuple[str, ...]] = WeakKeyDictionary()

    def of(self, image: Image) -> Labels | None:
        """Return the newest map of an image that is still in the viewer."""
        return self._there(self._maps.get(image))

    def forget(self, image: Image) -> bool:
        """Let go of the map of an image that shows something else now; it stays in the viewer.

        Returns
        -------
        bool
            Whether there was one.
        """
        was_there = self.of(image) is not None
        self._maps.pop(image, None)
        return was_there

    def _there(self, kept: Any) -> Any:
        viewer, layer = self._viewer(), None if kept is None else kept()
        return layer if viewer is not None and layer in viewer.layers else None

    def prepare(
        self, image: Image, names: Sequence[str], colours: Sequence[QColor]
    ) -> tuple[Labels, bool]:
        """Get the layer to write a map to.

        Parameters
        ----------
        image : napari.layers.Image
            What is mapped.
        names : sequence of str
            Of the classes.
        colours : sequence of QColor
            Theirs.

        Returns
        -------
        Labels
            The map of the image, or a new one.
        bool
            Whether a map that was corrected by hand was left alone.
        """
        present = self.of(image)
        fits = (
            present is not None
            and present.data.shape == spatial_shape(image)
            and shows_classes(present, names)
        )
        if present is not None and fits and present not in self._painted:
            put_onto(present, image)
            self._colour(present, colours)
            return present, False
        corrected = present is not None and present in self._painted
        return self._add(image, names, colours), corrected

    def _colour(self, layer: Labels, colours: Sequence[QColor]) -> None:
        """Give a map its colours, once: that draws it anew, which sliders would feel."""
        names = tuple(colour.name() for colour in colours)
        if self._colours.get(layer) != names:
            layer.colormap = _colormap(colours)
            self._colours[layer] = names

    def _add(self, image: Image, names: Sequence[str], colours: Sequence[QColor]) -> Labels:
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("the viewer has been closed")
        options = like(image)
        options["metadata"][OWN][LEARNABLE] = True
        active = viewer.layers.selection.active
        layer = viewer.add_labels(
            np.zeros(spatial_shape(image), np.uint8),
            name=f"{image.name} {self._title}",
            opacity=_OPACITY,
            features=class_features(dict(enumerate(names, start=1))),
            **options,
        )
        self._colour(layer, colours)
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        layer.events.paint.connect(self._on_painted)
        layer.events.data.connect(self._on_painted)
        self._maps[image] = ref(layer)
        return layer

    def _on_painted(self, event: Any) -> None:
        self._painted.add(event.source)

    def write(
        self, layer: Labels, plane: Plane, values: NDArray[np.uint8], *, moves: bool = False
    ) -> None:
        """Show the map of one plane, (h, w); while it ``moves``, its thumbnail waits."""
        layer.data[plane] = values
        layer.refresh(extent=False, thumbnail=not moves)

    def replace(self, layer: Labels, values: NDArray[np.uint8]) -> None:
        """Show maps of all planes, (..., h, w), instead of what is there."""
        with layer.events.data.blocker(self._on_painted):
            layer.data = values

    def write_sureness(
        self, image: Image, layer: Labels, plane: Plane, confidence: NDArray[np.float32]
    ) -> None:
        """Show how sure the model was, (h, w), 0–1, in percent."""
        sure = self._there(self._sureness.get(layer))
        viewer = self._viewer()
        if sure is None and viewer is not None:
            active = viewer.layers.selection.active
            sure = viewer.add_image(
                np.zeros(spatial_shape(image), np.uint8),
                name=f"{image.name} confidence",
                colormap="magma",
                contrast_limits=(0, _PERCENT),
                blending="translucent",
                visible=False,
                **like(image),
            )
            viewer.layers.selection.active = active
            self._sureness[layer] = ref(sure)
        if sure is not None:
            put_onto(sure, image)
            sure.data[plane] = np.rint(_PERCENT * confidence).astype(np.uint8)
            sure.refresh(extent=False)

    def clear_sureness(self, layer: Labels, plane: Plane) -> None:
        """Forget how sure an earlier map of a plane was, if that is shown."""
        sure = self._there(self._sureness.get(layer))
        if sure is not None:
            sure.data[plane] = 0
            sure.refresh(extent=False)


def _colormap(colours: Sequence[QColor]) -> DirectLabelColormap:
    table: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    table |= {value: colour.name() for value, colour in enumerate(colours, start=1)}
    return DirectLabelColormap(color_dict=table)


_layers: WeakKeyDictionary[ViewerState, PhaseLayers] = WeakKeyDictionary()


def phase_layers_of(state: ViewerState) -> PhaseLayers:
    """Get the maps of a viewer; they outlive the dock that made them."""
    if state not in _layers:
        _layers[state] = PhaseLayers(state.viewer)
    return _layers[state]
