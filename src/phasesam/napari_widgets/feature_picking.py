"""Similarity to the token under the mouse, and what can be made of the one that was clicked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.core.similar_region import similar_region
from phasesam.napari_widgets.layers import world_to_data

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.feature_layers import FeatureLayers
    from phasesam.napari_widgets.feature_run import SeenLayers

_MOVED = 3.0


class TokenPicker(QObject):
    """Follows the mouse over an image whose layers have been looked at.

    Parameters
    ----------
    dock : Dock
        Whose viewer is watched, as long as the dock is visible.
    layers : FeatureLayers
        Show the similarity, and know which layer is shown.

    Attributes
    ----------
    is_on : bool
        Whether the mouse is followed.
    model : int
        Whose features are compared, 0 or 1.
    class_index : int or None
        Class whose mean tokens are compared with instead of one under the mouse.
    """

    picked = Signal()
    """A token was clicked, or is none any more."""

    def __init__(self, dock: Dock, layers: FeatureLayers) -> None:
        super().__init__(dock)
        self._dock, self._layers = dock, layers
        self._seen: SeenLayers | None = None
        self._image: Image | None = None
        self._point: NDArray[np.float64] | None = None
        self._last: tuple[int, int, tuple[int, int]] | None = None
        self.is_on = False
        self.model = 0
        self.class_index: int | None = None
        self._has_mean = False
        viewer = dock.viewer
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.mouse_drag_callbacks.append(self._on_drag)
        dock.subscriptions.add(lambda: viewer.mouse_move_callbacks.remove(self._on_move))
        dock.subscriptions.add(lambda: viewer.mouse_drag_callbacks.remove(self._on_drag))

    def set_seen(self, image: Image | None, seen: SeenLayers | None) -> None:
        """Follow the mouse over another image, or over none."""
        self._image, self._seen = image, seen
        self.model = min(self.model, 0 if seen is None else seen.n_models - 1)
        self.class_index = None
        self.let_go()

    def let_go(self) -> None:
        """Forget the token that was clicked."""
        self._point = self._last = None
        self._layers.hide_similarity()
        self.picked.emit()

    @property
    def point(self) -> NDArray[np.float64] | None:
        """Where was clicked, ``(y, x)`` in pixels of the image."""
        return self._point

    @property
    def _ready(self) -> bool:
        return (
            self.is_on
            and self._seen is not None
            and self._image is not None
            and self._image in self._dock.viewer.layers
            and self._dock.isVisibleTo(self._dock.window())
        )

    def _place(self, position: Any) -> NDArray[np.float64] | None:
        """Pixel of the mouse on the plane that was looked at."""
        if self._image is None or not self.is_in_view:
            return None
        return world_to_data(self._dock.viewer, self._image, position)[-2:]

    def _on_move(self, _viewer: Any, event: Any) -> None:
        if event.is_dragging or self._point is not None or not self._ready:
            return
        point = self._place(event.position)
        if point is None or not self.show(point):
            self._layers.hide_similarity()
            self._last = None

    def _on_drag(self, _viewer: Any, event: Any) -> Iterator[None]:
        if event.button != 1 or not self._ready:
            return
        start = np.array(event.pos, np.float64)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.array(event.pos) - start).max() > _MOVED:
            return
        point = self._place(event.position)
        if point is not None and self.show(point):
            self._point = point
            self.picked.emit()
        else:
            self.let_go()

    def show(self, point: NDArray[np.float64]) -> bool:
        """Show what is similar to a pixel; False outside the picture."""
        seen, image, index = self._seen, self._image, self._layers.index
        if seen is None or image is None or index is None:
            return False
        token = seen.token_at(index, point)
        if token is None:
            return False
        if (index, self.model, token) != self._last:
            self._last = index, self.model, token
            found = seen.similarity(index, self.model, token)
            self._layers.show_similarity(image, found, seen.side(index))
        return True

    def _show_class(self, index: int) -> None:
        seen, image, layer = self._seen, self._image, self._layers.index
        if seen is None or image is None or layer is None:
            return
        try:
            found = seen.class_similarity(layer, self.model, index)
        except PhaseSAMError as error:
            self._has_mean = False
            self._layers.hide_similarity()
            self._dock.show_error(f"{seen.classes[index]}: {error}.")
            return
        self._has_mean = True
        self._layers.show_similarity(image, found, seen.side(layer))

    @property
    def holds(self) -> bool:
        """Whether there is something to compare with: a clicked token, or a class."""
        if self._layers.index is None:
            return False
        return self._has_mean if self.class_index is not None else self._point is not None

    @property
    def is_in_view(self) -> bool:
        """Whether the viewer shows the plane that was looked at."""
        if self._seen is None or self._image is None:
            return False
        try:
            return self._dock.state.plane(self._image).index == self._seen.plane.index
        except UnsupportedViewError:
            return False

    def refresh(self) -> None:
        """Show what is compared with in another layer, or as another model sees it."""
        if self._layers.index is None:
            # The user has removed the stack: nothing is there to be compared.
            self._last = None
            self._layers.hide_similarity()
        elif self.class_index is not None and self.is_in_view:
            self._show_class(self.class_index)
        elif self._point is not None and self.is_in_view:
            self.show(self._point)
        else:
            # What was under the mouse was so in another layer, or on another plane.
            self._last = None
            self._layers.hide_similarity()

    def region(self, least: float, *, connected: bool) -> Callable[[], NDArray[np.bool_]] | None:
        """Prepare to find the pixels that look like the one that was clicked, or like a class.

        Returns
        -------
        callable or None
            For a worker: returns (h, w) of the whole plane; raises `InvalidMaskError` if not even
            that pixel is similar enough. None if nothing is held, or no layer is shown.
        """
        seen, index = self._seen, self._layers.index
        if seen is None or index is None:
            return None
        around = None
        if self.class_index is not None:
            similarity = seen.class_similarity(index, self.model, self.class_index)
        elif self._point is not None and (token := seen.token_at(index, self._point)) is not None:
            similarity = seen.similarity(index, self.model, token)
            around = (float(self._point[0]), float(self._point[1])) if connected else None
        else:
            return None
        side = seen.side(index)
        shape, size = seen.plane.shape, (seen.rgb.shape[0], seen.rgb.shape[1])

        def find() -> NDArray[np.bool_]:
            mask = np.zeros(shape, bool)
            mask[: size[0]] = similar_region(similarity, side, size, least=least, around=around)
            return mask

        return find
