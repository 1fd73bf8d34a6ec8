"""The tool buttons of the Prompt dock, in step with napari's layers and modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QObject, Signal

from phasesam.napari_widgets.plane_layer import show_point
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from phasesam.napari_widgets.committing import ObjectMaker
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.prompting import PromptController
    from phasesam.session import ObjectRecord

_TOOLS = (
    ("+", "+ point", "Click inside the object"),
    ("-", "− point", "Click where the object is not; on an added object: re-open it"),
    ("box", "box", "Draw a box around the object; several boxes make several objects"),
    ("mask", "existing mask", "Click on an object of any Labels layer to start from its mask"),
    ("brush", "brush", "Paint on the selected object, or a new one"),
    ("erase", "erase", "Erase parts of added objects"),
)


class PromptTools(QObject):
    """Chooses layer, mode and sign for a tool; notices when the user chose otherwise.

    Parameters
    ----------
    dock : Dock
        Owner.
    controller : PromptController
        Has the prompt layers.
    maker : ObjectMaker
        Tells objects that were just added from those that the user selected.
    """

    changed = Signal()
    """Another tool is in use."""

    def __init__(self, dock: Dock, controller: PromptController, maker: ObjectMaker) -> None:
        super().__init__(dock)
        self.row = ToggleRow(_TOOLS, columns=3, may_be_none=True)
        self._dock = dock
        self._state = dock.state
        self._controller = controller
        self._maker = maker
        self._painted = 0
        self._last = "+"
        self._switching = False
        self._followed: WeakSet[Layer] = WeakSet()
        self.row.chosen.connect(self.use)
        connect = dock.subscriptions.connect
        connect(dock.viewer.layers.selection.events.active, self._on_active)
        connect(self._state.events.image_changed, self._on_image_changed)
        connect(self._state.events.object_selected, self._on_object_selected)

    @property
    def current(self) -> str:
        """Key of the tool in use, empty if the user works with something else in napari."""
        return self.row.current

    def use(self, tool: str) -> None:
        """Switch to a tool; says why if that cannot be."""
        image = self._state.image_layer
        if self._controller.plane() is None or image is None:
            self._show("")
            return
        self._switching = True
        try:
            self._activate(tool, image)
        finally:
            self._switching = False
        self._last = tool
        self._show(tool)

    def _show(self, tool: str) -> None:
        self.row.set_current(tool)
        self.changed.emit()

    def _activate(self, tool: str, image: Image) -> None:
        layers = self._controller.layers(image)
        target: Any = image
        mode = "pan_zoom"
        if tool in "+-":
            layers.set_sign(tool == "+")
            target, mode = layers.make_points(), "add"
        elif tool == "box":
            target, mode = layers.make_boxes(), "add_rectangle"
        elif tool in ("brush", "erase"):
            target = self._state.labels_layer(image)
            mode = "paint" if tool == "brush" else "erase"
            target.selected_label = self._painted or self._state.session(image).next_id
            if tool == "brush":
                self._say_what_is_painted()
        if target is None:
            return
        target.visible = True
        self._dock.viewer.layers.selection.active = target
        target.mode = mode
        self._follow(target)

    def _say_what_is_painted(self) -> None:
        if self._painted:
            self._dock.show_result(f"Painting on object {self._painted}; N begins a new one.")
        else:
            self._dock.show_result("Painting a new object.")

    def show_object(self, record: ObjectRecord) -> None:
        """Move the view to an object if it lies outside of what is shown."""
        image = self._state.image_layer
        if image is None:
            return
        y0, x0, y1, x1 = record.box
        centre = np.array([(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2])
        corners = np.asarray(image.corner_pixels)[:, -2:]
        if image.multiscale or ((centre >= corners[0]) & (centre <= corners[1])).all():
            return
        show_point(self._dock.viewer, image, (*record.plane, *centre))

    # ------------------------------------------------------------------ keeping up

    def _follow(self, layer: Layer) -> None:
        if layer not in self._followed:
            self._followed.add(layer)
            self._dock.subscriptions.connect(layer.events.mode, self._on_active)

    def _tool_in_use(self) -> str:
        """Work out which tool the active layer and its mode amount to."""
        image = self._state.image_layer
        active = self._dock.viewer.layers.selection.active
        if image is None or active is None:
            return ""
        layers = self._controller.layers(image)
        mode = str(getattr(active, "mode", ""))
        if active is layers.points and mode == "add":
            return "+" if layers.is_positive else "-"
        if active is layers.boxes and mode == "add_rectangle":
            return "box"
        if active is self._state.existing_labels_layer(image):
            return {"paint": "brush", "erase": "erase"}.get(mode, "")
        if active is image and self.current == "mask":
            return "mask"
        return ""

    def _on_active(self, _event: Any = None) -> None:
        if not self._switching:
            self._show(self._tool_in_use())

    def _on_image_changed(self, image: Image | None) -> None:
        self._painted = 0
        active = self._dock.viewer.layers.selection.active
        if image is None or active is image or not self._dock.isVisibleTo(self._dock.window()):
            # Chosen in the layer list: the user wants that layer, not a tool.
            self._on_active()
        else:
            self.use(self._last)

    def _on_object_selected(self, object_id: int) -> None:
        # What was just added is done; the brush goes on with an object only if it was chosen.
        object_id = self._painted = 0 if self._maker.announces else object_id
        image = self._state.image_layer
        labels = None if image is None else self._state.existing_labels_layer(image)
        if image is not None and labels is not None:
            labels.selected_label = object_id or self._state.session(image).next_id
