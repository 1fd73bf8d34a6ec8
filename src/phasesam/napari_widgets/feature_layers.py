"""Layers of the encoder as layers of the viewer: stacks of colours, and a map of similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.utils.transforms import Affine
from numpy.typing import NDArray
from scipy.linalg import block_diag

from phasesam.napari_widgets.layers import like, like_plane, world_to_data

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from phasesam.napari_widgets.feature_run import SeenLayers

MODELS = ("A", "B")
_AXIS = "layer"


class FeatureLayers:
    """What the dock shows in the viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layers.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._stacks: list[tuple[ref[Image], ref[Image]]] = []
        self._similarity: ref[Image] | None = None

    @property
    def stacks(self) -> list[Image]:
        """Stacks of colours that are in the viewer, A before B."""
        viewer = self._viewer()
        found = [stack() for _, stack in self._stacks]
        return [s for s in found if s is not None and viewer is not None and s in viewer.layers]

    def show(self, images: Sequence[tuple[Image, SeenLayers]]) -> None:
        """Show what came of a run, in place of what was shown before."""
        viewer = self._viewer()
        if viewer is None:
            return
        self.remove()
        active = viewer.layers.selection.active
        for image, seen in images:
            for model in range(seen.n_models):
                stack = seen.stack(model)
                # A stack of images has its planes on the axes between.
                index = seen.plane.index
                data = stack.reshape(len(stack), *(1,) * len(index), *stack.shape[1:])
                layer = viewer.add_image(
                    data,
                    name=f"{image.name} features {MODELS[model]}",
                    rgb=True,
                    interpolation2d="nearest",
                    **_walking(image, index, seen.finest_side),
                )
                self._stacks.append((ref(image), ref(layer)))
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active

    def remove_orphans(self) -> None:
        """Take stacks out of the viewer whose image has left it."""
        viewer = self._viewer()
        if viewer is None:
            return
        gone = [pair for pair in self._stacks if pair[0]() not in viewer.layers]
        self._stacks = [pair for pair in self._stacks if pair not in gone]
        for _, stack in gone:
            layer = stack()
            if layer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    def remove(self) -> None:
        """Take everything out of the viewer."""
        viewer = self._viewer()
        if viewer is not None:
            for layer in (*self.stacks, *self._similarity_layer()):
                viewer.layers.remove(layer)
        self._stacks, self._similarity = [], None

    @property
    def index(self) -> int | None:
        """Which layer of the encoder the viewer's slider shows; None if there is no stack."""
        viewer, stacks = self._viewer(), self.stacks
        if viewer is None or not stacks:
            return None
        place = world_to_data(viewer, stacks[0], viewer.dims.point)[0]
        return int(np.clip(np.rint(place), 0, len(stacks[0].data) - 1))

    def go_to(self, index: int) -> None:
        """Walk to a layer of the encoder."""
        viewer, stacks = self._viewer(), self.stacks
        if viewer is not None and stacks:
            viewer.dims.set_point(viewer.dims.ndim - stacks[0].ndim, float(index))

    def _similarity_layer(self) -> list[Image]:
        viewer = self._viewer()
        layer = None if self._similarity is None else self._similarity()
        return [] if layer is None or viewer is None or layer not in viewer.layers else [layer]

    def show_similarity(self, image: Image, similarity: NDArray[np.float32], side: float) -> None:
        """Show how similar the tokens of a layer are to one of them, (h, w), within -1 to 1."""
        viewer = self._viewer()
        if viewer is None:
            return
        layer = next(iter(self._similarity_layer()), None)
        if layer is not None:
            if layer.data.shape == similarity.shape:
                layer.data[:] = similarity
                layer.refresh(extent=False, thumbnail=False)
            else:
                geometry = _on_plane(image, side)
                layer.data = similarity.copy()
                layer.scale, layer.translate = geometry["scale"], geometry["translate"]
            layer.visible = True
            return
        active = viewer.layers.selection.active
        layer = viewer.add_image(
            similarity.copy(),
            name=f"{image.name} similarity",
            colormap="magma",
            contrast_limits=(0.0, 1.0),
            opacity=0.7,
            **_on_plane(image, side),
        )
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        self._similarity = ref(layer)

    def hide_similarity(self) -> None:
        """Hide the map of similarity."""
        for layer in self._similarity_layer():
            layer.visible = False

    def set_grid(self, on: bool) -> None:
        """Show layers side by side, or on top of one another."""
        viewer: Any = self._viewer()
        if viewer is not None:
            viewer.canvas.grid.enabled = on


def _shifted(geometry: dict[str, Any], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the translation that puts pixel 0 of a new layer at a place in pixels of the old one."""
    linear = Affine(
        scale=geometry["scale"], rotate=geometry["rotate"], shear=geometry["shear"]
    ).linear_matrix
    moved: NDArray[np.float64] = np.asarray(geometry["translate"]) + linear @ offset
    return moved


def _on_plane(image: Image, side: float) -> dict[str, Any]:
    """Geometry of tokens on the planes of an image; its pixels are the centres of tokens."""
    geometry = like_plane(image)
    geometry["translate"] = _shifted(geometry, np.full(2, (side - 1) / 2))
    geometry["scale"] = np.asarray(geometry["scale"]) * side
    return geometry


def _walking(image: Image, index: tuple[int, ...], side: float) -> dict[str, Any]:
    """Geometry of a stack of such, on one plane of the image; its first axis is the layer."""
    geometry = like(image)
    offset = np.array([*index, (side - 1) / 2, (side - 1) / 2], np.float64)
    n = len(offset)
    factors = np.array([*(1.0,) * len(index), side, side])
    shear = np.asarray(geometry["shear"], np.float64)
    if shear.ndim == 1:
        matrix = np.eye(n)
        matrix[np.triu_indices(n, 1)] = shear
        shear = matrix
    return {
        "translate": (0.0, *_shifted(geometry, offset)),
        "scale": (1.0, *np.asarray(geometry["scale"]) * factors),
        "rotate": block_diag(1.0, np.asarray(geometry["rotate"])),
        "shear": block_diag(1.0, shear),
        "affine": geometry["affine"].expand_dims([0]),
        "units": ("pixel", *geometry["units"]),
        "axis_labels": (_AXIS, *geometry["axis_labels"]),
        "metadata": geometry["metadata"],
    }
