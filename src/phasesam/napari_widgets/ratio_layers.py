"""Layers of maps with wanted amounts: the present one, those kept, those to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QColor

from phasesam.napari_widgets.layers import like
from phasesam.napari_widgets.phase_layer import PhaseLayers
from phasesam.napari_widgets.planes import spatial_shape

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

_MARGIN_NATS = 3.0

Seen = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Shares of the phases, (K,): in a map, and as the model sees them."""


class RatioLayers:
    """What the dock shows in the viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layers.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._maps = PhaseLayers(viewer, title="phase ratio")
        self._stack_names: WeakKeyDictionary[Labels, str] = WeakKeyDictionary()
        self._stack_shares: WeakKeyDictionary[Labels, Seen] = WeakKeyDictionary()
        self._stacks = PhaseLayers(viewer, title="phase ratio of the stack")
        self._margins: WeakKeyDictionary[Image, ref[Image]] = WeakKeyDictionary()

    def of(self, image: Image) -> Labels | None:
        """Return the present map of an image."""
        return self._maps.of(image)

    def show(
        self,
        image: Image,
        classes: tuple[Sequence[str], Sequence[QColor]],
        plane: tuple[int, ...],
        values: NDArray[np.uint8],
        *,
        moves: bool = False,
    ) -> Labels:
        """Show a map of one plane, (h, w); one that was painted on is left alone.

        While it ``moves``, only what cannot wait is drawn.
        """
        layer, _ = self._maps.prepare(image, *classes)
        self._maps.write(layer, plane, values, moves=moves)
        return layer

    def show_stack(
        self,
        image: Image,
        classes: tuple[Sequence[str], Sequence[QColor]],
        values: NDArray[np.uint8],
        *,
        name: str,
        shares: Seen,
        visible: bool,
    ) -> bool:
        """Show maps of all planes, (..., h, w), in a layer of their own instead of the other one.

        Parameters
        ----------
        image, classes, values
            As for `show`.
        name : str
            Of copies.
        shares : tuple of two (K,) float64 arrays
            What they have of the phases, and what the model sees.
        visible : bool
            Whether it takes the place of the map of one plane at once.

        Returns
        -------
        bool
            Whether maps that were corrected by hand were left alone.
        """
        layer, corrected = self._stacks.prepare(image, *classes)
        self._stacks.replace(layer, values)
        layer.visible = visible
        self._stack_names[layer], self._stack_shares[layer] = name, shares
        plane = self.of(image)
        if plane is not None and visible:
            plane.visible = False
        return corrected

    def _shown_stack(self, image: Image) -> Labels | None:
        plane, stack = self.of(image), self._stacks.of(image)
        if stack is None or not stack.visible or (plane is not None and plane.visible):
            return None
        return stack

    def stack_name(self, image: Image) -> str | None:
        """Return the name for a copy of the maps of all planes, if these are what is shown."""
        stack = self._shown_stack(image)
        return None if stack is None else self._stack_names.get(stack)

    def stack_shares(self, image: Image) -> Seen | None:
        """Return what the maps of all planes have of the phases, if these are what is shown."""
        stack = self._shown_stack(image)
        return None if stack is None else self._stack_shares.get(stack)

    def reveal(self, image: Image) -> None:
        """Show the map of one plane again, instead of those of all."""
        plane, stack = self.of(image), self._stacks.of(image)
        if stack is not None and stack.visible:
            stack.visible = False
            if plane is not None:
                plane.visible = True

    def copy(self, image: Image, name: str, *, opaque: bool) -> Labels | None:
        """Add a copy of the map that is shown, and that nothing changes any more.

        Beside the image instead of on it, it has to be opaque to be seen well.
        """
        stack = self._stacks if self.stack_name(image) else None
        viewer, layer = self._viewer(), (stack or self._maps).of(image)
        if viewer is None or layer is None:
            return None
        active = viewer.layers.selection.active
        kept = viewer.add_labels(
            layer.data.copy(),
            name=name,
            opacity=1.0 if opaque else layer.opacity,
            colormap=layer.colormap,
            features=layer.features,
            **like(image) | {"metadata": dict(layer.metadata)},
        )
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        return kept

    def show_margin(
        self, image: Image, plane: tuple[int, ...], margin: NDArray[np.float32] | None
    ) -> None:
        """Show where pixels would change hands first: bright; None hides the layer."""
        viewer, kept = self._viewer(), self._margins.get(image)
        if viewer is None:
            return
        layer = None if kept is None or kept() not in viewer.layers else kept()
        if margin is None:
            if layer is not None:
                layer.visible = False
            return
        if layer is None:
            active = viewer.layers.selection.active
            layer = viewer.add_image(
                np.zeros(spatial_shape(image), np.uint8),
                name=f"{image.name} flips first",
                colormap="magma",
                contrast_limits=(0, 255),
                blending="additive",
                **like(image),
            )
            viewer.layers.selection.active = active
            self._margins[image] = ref(layer)
        elif layer.data.shape != spatial_shape(image):
            layer.data = np.zeros(spatial_shape(image), np.uint8)
        nearness = np.clip(1 - margin / _MARGIN_NATS, 0, 1)
        layer.data[plane] = np.rint(255 * nearness).astype(np.uint8)
        layer.visible = True
        layer.refresh(extent=False)

    def set_grid(self, on: bool) -> None:
        """Show layers side by side, or on top of one another."""
        viewer: Any = self._viewer()
        if viewer is not None:
            viewer.canvas.grid.enabled = on
