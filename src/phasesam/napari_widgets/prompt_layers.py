"""The layers a user prompts with: points, boxes and the preview of the present object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers.base import ActionType
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from phasesam.napari_widgets.layers import like, like_plane
from phasesam.napari_widgets.planes import spatial_shape

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points, Shapes

    from phasesam.core.mask_set import MaskCrop
    from phasesam.napari_widgets.planes import ShownPlane

POSITIVE_COLOUR = "#90ee90"  # light green
NEGATIVE_COLOUR = "#d55e00"  # vermilion
_PRESENT_COLOUR = "#56b4e9"  # sky blue, so that the green plus stands out
_HOVER_COLOUR = "#f0e442"  # yellow
_SIGN_COLOURS = {"positive": POSITIVE_COLOUR, "negative": NEGATIVE_COLOUR}
_SYMBOLS = {"positive": "cross", "negative": "hbar"}
_SCREEN_SIZE = (15, 17)
_SMALLEST_BOX = 2.0
_FINISHED = (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED)

PRESENT, HOVER = 1, 2


@dataclass(frozen=True)
class PlanePrompts:
    """The prompts on one plane, in its pixels.

    Attributes
    ----------
    points : (n, 2) float64 array
        ``(y, x)``.
    labels : (n,) int64 array
        1 inside, 0 outside.
    boxes : (m, 4) float64 array
        ``(y0, x0, y1, x1)``.
    """

    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @property
    def count(self) -> int:
        """Number of points and boxes."""
        return len(self.points) + len(self.boxes)

    def same_as(self, other: PlanePrompts) -> bool:
        """Whether both say the same."""
        return (
            np.array_equal(self.points, other.points)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.boxes, other.boxes)
        )

    def extends(self, other: PlanePrompts) -> bool:
        """Whether this is ``other`` and more, so that its answer may be refined."""
        n, m = len(other.points), len(other.boxes)
        return (
            self.count > other.count
            and np.array_equal(self.points[:n], other.points)
            and np.array_equal(self.labels[:n], other.labels)
            and np.array_equal(self.boxes[:m], other.boxes)
        )


class PromptLayers:
    """Points, boxes and preview of one image, each made when first needed.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layers.
    image : napari.layers.Image
        The image that is prompted.
    on_changed : callable
        Called without arguments after the user has added, moved or removed prompts.
    """

    def __init__(self, viewer: ViewerModel, image: Image, on_changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._image = ref(image)
        self._name = image.name
        self._on_changed = on_changed
        self._points: Points | None = None
        self._boxes: Shapes | None = None
        self._preview: Labels | None = None
        self._shown: list[tuple[slice, slice]] = []
        self._quiet = False

    # ------------------------------------------------------------------ layers on demand

    @property
    def image(self) -> Image | None:
        """The image, None if it is gone."""
        return self._image()

    @property
    def points(self) -> Points | None:
        """The points layer if it exists and is in the viewer."""
        return self._points if self._points in self._viewer.layers else None

    @property
    def boxes(self) -> Shapes | None:
        """The boxes layer if it exists and is in the viewer."""
        return self._boxes if self._boxes in self._viewer.layers else None

    @property
    def preview(self) -> Labels | None:
        """The preview layer if it exists and is in the viewer."""
        return self._preview if self._preview in self._viewer.layers else None

    def make_points(self) -> Points | None:
        """Get the points layer, made if need be; None if the image is gone."""
        image = self.image
        if image is None or self.points is not None:
            return self.points
        layer = self._viewer.add_points(
            ndim=image.ndim,
            name=f"{self._name} points",
            size=_share_of(image, 1 / 50),
            features={"sign": np.array([], dtype=object)},
            feature_defaults={"sign": "positive"},
            face_color="sign",
            face_color_cycle=_SIGN_COLOURS,
            # A size that is limited on the screen makes napari (0.9) draw the border over
            # the whole symbol, so it has the same colour.
            border_color="sign",
            border_color_cycle=_SIGN_COLOURS,
            symbol="cross",
            canvas_size_limits=_SCREEN_SIZE,
            **like(image),
        )
        layer.events.data.connect(self._on_points)
        self._points = layer
        return layer

    def make_boxes(self) -> Shapes | None:
        """Get the boxes layer, made if need be; None if the image is gone."""
        image = self.image
        if image is None or self.boxes is not None:
            return self.boxes
        layer = self._viewer.add_shapes(
            ndim=image.ndim,
            name=f"{self._name} boxes",
            face_color="transparent",
            edge_color=POSITIVE_COLOUR,
            edge_width=_share_of(image, 1 / 400),
            **like(image),
        )
        layer.events.data.connect(self._on_boxes)
        self._boxes = layer
        return layer

    def _make_preview(self) -> Labels | None:
        image = self.image
        if image is None or self.preview is not None:
            return self.preview
        active = self._viewer.layers.selection.active
        # Two-dimensional even on a stack: it lies under the mouse whatever plane is shown.
        layer = self._viewer.add_labels(
            np.zeros(spatial_shape(image)[-2:], np.uint8),
            name=f"{self._name} prompt preview",
            opacity=0.5,
            colormap=DirectLabelColormap(
                color_dict={
                    None: "transparent",
                    0: "transparent",
                    PRESENT: _PRESENT_COLOUR,
                    HOVER: _HOVER_COLOUR,
                }
            ),
            **like_plane(image),
        )
        layer.editable = False
        self._viewer.layers.selection.active = active
        self._preview = layer
        self._shown = []
        return layer

    def _raise_prompts(self) -> None:
        """Keep points and boxes above the masks, where they can be seen."""
        layers = self._viewer.layers
        prompts = [layer for layer in (self.boxes, self.points) if layer is not None]
        if list(layers)[len(layers) - len(prompts) :] != prompts:
            for layer in prompts:
                layers.move(layers.index(layer), len(layers))

    # ------------------------------------------------------------------ tools

    def set_sign(self, positive: bool) -> None:
        """Choose whether the next points are inside or outside of the object."""
        layer = self.make_points()
        if layer is None:
            return
        sign = "positive" if positive else "negative"
        with self._silence():
            # Defaults set while a point is selected would change that point.
            layer.selected_data = set()
            layer.feature_defaults = {"sign": sign}
            layer.current_symbol = _SYMBOLS[sign]
            layer.current_face_color = _SIGN_COLOURS[sign]
            layer.current_border_color = _SIGN_COLOURS[sign]

    @property
    def is_positive(self) -> bool:
        """Whether the next point is inside."""
        layer = self.points
        return layer is None or layer.feature_defaults["sign"][0] == "positive"

    # ------------------------------------------------------------------ reading and writing

    def read(self, plane: ShownPlane) -> PlanePrompts:
        """Read the prompts on ``plane``; points outside and tiny boxes do not count."""
        points, labels = np.zeros((0, 2)), np.zeros(0, np.int64)
        if self.points is not None and len(self.points.data):
            positions = np.asarray(self.points.data, dtype=np.float64)
            inside = plane.holds(positions) & _within(positions[:, -2:], plane.shape)
            points = positions[inside][:, -2:]
            signs = np.asarray(self.points.features["sign"], dtype=object)[inside]
            labels = (signs == "positive").astype(np.int64)
        boxes = np.zeros((0, 4))
        if self.boxes is not None:
            found = [box for box, on in self._boxes_of(plane) if on]
            boxes = np.array(found, dtype=np.float64).reshape(-1, 4)
        return PlanePrompts(points, labels, boxes)

    def write(self, prompts: PlanePrompts, plane: ShownPlane) -> None:
        """Replace the prompts on ``plane``; those of other planes stay."""
        with self._silence():
            self._remove_on(plane)
            if len(prompts.points):
                layer = self.make_points()
                if layer is not None:
                    self._add_points(layer, prompts, plane)
            if len(prompts.boxes):
                shapes = self.make_boxes()
                if shapes is not None:
                    corners = [
                        plane.at(np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]))
                        for y0, x0, y1, x1 in prompts.boxes
                    ]
                    shapes.add_rectangles(corners)

    def settle(self, plane: ShownPlane) -> None:
        """Tidy up after the user: deselect a new point, so that its colour shows.

        What does not count on ``plane`` is removed: clicks beside the image, boxes without size.
        """
        points, shapes = self.points, self.boxes
        with self._silence():
            if points is not None and points.mode == "add":
                points.selected_data = set()
            if points is not None and len(points.data):
                outside = ~_within(np.asarray(points.data)[:, -2:], plane.shape)
                self._remove_points(points, outside)
            if shapes is not None and len(shapes.data):
                tiny = [
                    index
                    for index, (corners, (_, counts)) in enumerate(
                        zip(shapes.data, self._boxes_of(plane), strict=True)
                    )
                    if not counts and plane.holds(corners).all()
                ]
                if tiny:
                    shapes.selected_data = set(tiny)
                    shapes.remove_selected()

    def clear(self, plane: ShownPlane) -> None:
        """Remove prompts and preview of ``plane``."""
        self.write(PlanePrompts(), plane)
        self.show([])

    def show(self, crops: Sequence[MaskCrop], value: int = PRESENT) -> None:
        """Show masks in the preview layer instead of what was there."""
        layer = self.preview
        if layer is None and not crops:
            return
        layer = self._make_preview()
        if layer is None:
            return
        for where in self._shown:
            layer.data[where] = 0
        self._shown = [crop.slices for crop in crops]
        for crop in crops:
            np.copyto(layer.data[crop.slices], value, where=crop.array())
        layer.visible = True
        layer.refresh(extent=False, thumbnail=False)
        self._raise_prompts()

    def set_visible(self, visible: bool) -> None:
        """Show or hide all layers, when another image is worked on."""
        for layer in (self.points, self.boxes, self.preview):
            if layer is not None:
                layer.visible = visible

    def close(self) -> None:
        """Take all layers out of the viewer and stop listening."""
        for layer, callback in ((self._points, self._on_points), (self._boxes, self._on_boxes)):
            if layer is not None:
                layer.events.data.disconnect(callback)
        for layer in (self.points, self.boxes, self.preview):
            if layer is not None:
                self._viewer.layers.remove(layer)

    # ------------------------------------------------------------------ inside

    @contextmanager
    def _silence(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _add_points(self, layer: Points, prompts: PlanePrompts, plane: ShownPlane) -> None:
        next_positive = self.is_positive
        order = groupby(range(len(prompts.points)), key=prompts.labels.tolist().__getitem__)
        for label, run in order:
            # Signs are set through the defaults, which is how napari colours new points.
            self.set_sign(bool(label))
            layer.add(plane.at(prompts.points[list(run)]))
        self.set_sign(next_positive)

    def _remove_points(self, layer: Points, gone: NDArray[np.bool_]) -> None:
        if not gone.any():
            return
        # napari gives the sign of points that are selected to the next point too.
        next_positive = self.is_positive
        layer.selected_data = set(np.flatnonzero(gone).tolist())
        layer.remove_selected()
        self.set_sign(next_positive)

    def _boxes_of(self, plane: ShownPlane) -> Iterator[tuple[NDArray[np.float64], bool]]:
        """Every rectangle clipped to the image, and whether it counts on ``plane``."""
        height, width = plane.shape
        for corners in self.boxes.data if self.boxes is not None else ():
            yx = np.asarray(corners, dtype=np.float64)[:, -2:]
            low = np.clip(yx.min(axis=0), 0, (height - 1, width - 1))
            high = np.clip(yx.max(axis=0), 0, (height - 1, width - 1))
            large = bool((high - low >= _SMALLEST_BOX).all())
            yield np.concatenate([low, high]), large and bool(plane.holds(corners).all())

    def _remove_on(self, plane: ShownPlane) -> None:
        points = self.points
        if points is not None and len(points.data):
            positions = np.asarray(points.data)
            gone = plane.holds(positions) | ~_within(positions[:, -2:], plane.shape)
            self._remove_points(points, gone)
        shapes = self.boxes
        if shapes is not None and len(shapes.data):
            gone_boxes = [bool(plane.holds(corners).all()) for corners in shapes.data]
            shapes.selected_data = set(np.flatnonzero(gone_boxes).tolist())
            shapes.remove_selected()

    def _on_points(self, event: Any) -> None:
        if not self._quiet and event.action in _FINISHED:
            self._on_changed()

    def _on_boxes(self, event: Any) -> None:
        if not self._quiet and event.action in _FINISHED:
            self._on_changed()


def _share_of(image: Image, share: float) -> float:
    """Length in pixels that is a share of the longer side, at least one pixel."""
    return max(1.0, max(spatial_shape(image)[-2:]) * share)


def _within(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which (n, 2) positions lie on a pixel of an (h, w) image."""
    return np.asarray(((points >= -0.5) & (points < np.array(shape) - 0.5)).all(axis=1))
