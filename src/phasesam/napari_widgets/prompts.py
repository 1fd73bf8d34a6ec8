"""The Prompt dock: click, draw a box, paint; add objects one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QHBoxLayout, QLabel, QPushButton

from phasesam.core.errors import UnsupportedViewError
from phasesam.napari_widgets.adopting import AdoptRow
from phasesam.napari_widgets.committing import ObjectMaker
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.footer import duration_text
from phasesam.napari_widgets.hover import HoverPreview
from phasesam.napari_widgets.keys import bind_keys, keys_help
from phasesam.napari_widgets.learning_panel import LearningPanel
from phasesam.napari_widgets.mask_picking import label_at
from phasesam.napari_widgets.object_look import ObjectLook
from phasesam.napari_widgets.present_object import SCALES
from phasesam.napari_widgets.prompt_layers import PlanePrompts
from phasesam.napari_widgets.prompt_settings import PromptSettings
from phasesam.napari_widgets.prompt_tools import PromptTools
from phasesam.napari_widgets.prompting import PromptController
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from phasesam.session import ObjectRecord, SegmentationSession

_SCALE_TIPS = {
    "auto": "Best of the three for one click; one refined mask for more",
    "part": "Smallest of the model's three masks: a part of the object",
    "object": "Middle of the model's three masks: the whole object",
    "group": "Largest of the model's three masks: the object and what belongs to it",
}


class PromptDock(Dock):
    """Prompt one object after the other and add them to a Labels layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Filled in by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        self._session: SegmentationSession | None = None
        self.controller = PromptController(self)
        self.maker = ObjectMaker(self, self.controller)
        self.tools = PromptTools(self, self.controller, self.maker)
        self.look = ObjectLook(self)
        self._make_widgets()
        self.settings = PromptSettings(self)
        self.add_advanced(
            "Go on with", AdoptRow(self), "Takes the objects of another Labels layer into this one"
        )
        self.learning = LearningPanel(self)
        self.add_advanced("", self.learning)
        self.maker.added.connect(self.learning.learning.add)
        self.controller.predictor = self.learning.learning.predictor
        self.hover = HoverPreview(self, self.controller, self._previews_are_on)
        self._connect()
        self._on_image_changed(self.state.image_layer)
        self._refresh()
        if self.state.image_layer is None:
            self.show_result("Open an image: drag it into the viewer.")
        else:
            self.show_result("Click on an object, or draw a box around it.")
            self.tools.use("+")

    # ------------------------------------------------------------------ widgets

    def _make_widgets(self) -> None:
        self.scale = ToggleRow([(key, key, _SCALE_TIPS[key]) for key in SCALES], columns=4)
        self.scale.set_current("auto")
        self.score = QLabel()
        self.score.setToolTip(
            "Predicted IoU of the mask, 0 to 1, as the model sees it; and your prompts"
        )
        self.preview_check = QCheckBox("Preview under the mouse (W)")
        self.preview_check.setChecked(True)
        self.preview_check.setToolTip("Shows in yellow what a click here would select")
        self.add_button = _button("Add object (N)", "Keeps the blue mask as an object")
        self.clear_button = _button("Clear (K)", "Removes the prompts of the present object")
        self.undo_button = _button("Undo (Ctrl+Z)", "")
        self.redo_button = _button("Redo", "")
        self.class_combo = QComboBox()
        self.class_combo.setEditable(True)
        self.class_combo.setToolTip("Class of the objects you add from now on; type a new name")
        line_edit = self.class_combo.lineEdit()
        if line_edit is not None:
            line_edit.setPlaceholderText("no class")

        rows = QGridLayout()
        rows.setColumnStretch(1, 1)
        for number, (text, widget) in enumerate(
            [("Tool", self.tools.row), ("Scale", self.scale), ("", self.score)]
        ):
            rows.addWidget(QLabel(text), number, 0, Qt.AlignmentFlag.AlignTop)
            rows.addWidget(widget, number, 1)
        self.body.addLayout(rows)
        self.body.addWidget(self.preview_check)
        self.body.addWidget(self.add_button)
        edits = QHBoxLayout()
        for button in (self.clear_button, self.undo_button, self.redo_button):
            edits.addWidget(button)
        self.body.addLayout(edits)
        look = QGridLayout()
        look.setColumnStretch(1, 1)
        look.addWidget(QLabel("Class"), 0, 0)
        look.addWidget(self.class_combo, 0, 1, 1, 2)
        look.addWidget(QLabel("Opacity"), 1, 0)
        look.addWidget(self.look.opacity, 1, 1)
        look.addWidget(self.look.contour, 1, 2)
        self.body.addLayout(look)

    def _connect(self) -> None:
        actions = {
            "add": self._add,
            "clear": self.maker.clear,
            "undo": self.maker.undo,
            "redo": self.maker.redo,
            "next_scale": self._next_scale,
            "reopen": self._reopen,
            "next_object": lambda: self._step_object(1),
            "previous_object": lambda: self._step_object(-1),
            "toggle_preview": self.preview_check.toggle,
        }
        bind_keys(self, actions, rank=2)
        self.body.addWidget(keys_help(actions))
        self.add_button.clicked.connect(self._add)
        self.clear_button.clicked.connect(self.maker.clear)
        self.undo_button.clicked.connect(self.maker.undo)
        self.redo_button.clicked.connect(self.maker.redo)
        self.scale.chosen.connect(self._on_scale)
        self.settings.mask_settings_changed.connect(self._on_mask_settings)
        self.preview_check.toggled.connect(self._on_preview_toggled)
        self.class_combo.currentTextChanged.connect(self._on_class)
        self.controller.events.present_changed.connect(self._refresh)
        self.tools.changed.connect(self._refresh)
        self.controller.events.answered.connect(self._on_answered)
        self.subscriptions.connect(self.state.events.image_changed, self._on_image_changed)
        self.subscriptions.add(self._unfollow)
        callbacks = self.viewer.mouse_drag_callbacks
        callbacks.append(self._on_press)
        self.subscriptions.add(lambda: callbacks.remove(self._on_press))

    # ------------------------------------------------------------------ actions

    def _add(self) -> None:
        present = self.controller.present()
        if self.tools.current == "brush" and present is not None and present.is_empty:
            self.state.select_object(0)
            self.show_result("The next stroke paints a new object.")
        else:
            self.maker.add()

    def _on_scale(self, scale: str) -> None:
        self.controller.settings = self.settings.mask_settings(scale)
        present = self.controller.present()
        if present is None or present.answer is None:
            return
        here = len(present.answer.masks) == 3
        if here:
            self.controller.show()
        if not here or present.answer.is_cut(present.chosen(scale)[0]):
            self.controller.ask_again()
        self._refresh()

    def _next_scale(self) -> None:
        scale = SCALES[(SCALES.index(self.scale.current) + 1) % len(SCALES)]
        self.scale.set_current(scale)
        self._on_scale(scale)

    def _on_mask_settings(self) -> None:
        self.controller.settings = self.settings.mask_settings(self.scale.current)
        self.controller.ask_again()

    def _on_preview_toggled(self, is_on: bool) -> None:
        if not is_on:
            self.hover.clear()

    def _previews_are_on(self) -> bool:
        return self.preview_check.isChecked() and self.tools.current == "+"

    def _on_class(self, name: str) -> None:
        self.maker.class_name = name.strip()

    def _reopen(self) -> None:
        object_id = self.state.selected_object or self._object_under_mouse()
        if object_id:
            self.reopen(object_id)
        else:
            self.show_result("Select an object (J, H) or point at one, then press U.")

    def reopen(self, object_id: int) -> bool:
        """Re-open an object and be ready for clicks; False, with a message, if that cannot be."""
        if not self.maker.reopen(object_id):
            return False
        self._be_ready_for_clicks()
        return True

    def prompt_with(self, points: NDArray[np.float64]) -> bool:
        """Prompt for an object with points inside of it, (n, 2) ``(y, x)``.

        Returns False where the plane in view cannot be prompted; the message says why.
        """
        image, plane = self.state.image_layer, self.controller.plane()
        present = self.controller.present()
        if image is None or plane is None or present is None:
            return False
        present.say(PlanePrompts(points, np.ones(len(points), np.int64)))
        self.controller.restore()
        self.controller.ask()
        self._be_ready_for_clicks()
        return True

    def _be_ready_for_clicks(self) -> None:
        if self.tools.current not in ("+", "-", "box"):
            self.tools.use("+")

    def _object_under_mouse(self) -> int:
        image = self.state.image_layer
        labels = None if image is None else self.state.existing_labels_layer(image)
        found = None
        if labels is not None:
            found = label_at(self.viewer, labels, self.viewer.cursor.position)
        return 0 if found is None else found[0]

    def _step_object(self, step: int) -> None:
        image = self.state.image_layer
        plane = None if image is None else self.controller.plane()
        if image is None or plane is None:
            return
        records = [r for r in self.state.session(image).objects if r.plane == plane.index]
        if not records:
            self.show_result("No objects on this plane yet.")
            return
        ids = [record.id for record in records]
        present = self.state.selected_object
        start = ids.index(present) if present in ids else (-1 if step > 0 else 0)
        record = records[(start + step) % len(records)]
        self.state.select_object(record.id)
        self.tools.show_object(record)
        self.show_result(_describe(record))

    def _on_press(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Pick an existing mask with a click that is not a drag."""
        if self.tools.current != "mask" or event.button != 1:
            return
        position, dragged = np.asarray(event.position), False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged:
            before = self.controller.present()
            self.maker.begin_with_mask(position)
            present = self.controller.present()
            if present is not None and present is not before and present.mask is not None:
                self._be_ready_for_clicks()

    # ------------------------------------------------------------------ keeping up

    def _on_image_changed(self, image: Image | None) -> None:
        self._unfollow()
        self.hover.clear()
        self.look.show_image()
        if image is not None:
            self._session = self.state.session(image)
            self._session.events.objects_changed.connect(self._on_objects_changed)
            self._session.events.history_changed.connect(self._on_history_changed)
        self._on_objects_changed()
        self._on_history_changed()

    def _unfollow(self) -> None:
        if self._session is not None:
            self._session.events.objects_changed.disconnect(self._on_objects_changed)
            self._session.events.history_changed.disconnect(self._on_history_changed)
            self._session = None

    def _on_objects_changed(self) -> None:
        self.look.note_objects()
        known = {self.class_combo.itemText(i) for i in range(self.class_combo.count())}
        for name in self._session.class_names if self._session is not None else ():
            if name not in known:
                text = self.class_combo.currentText()
                self.class_combo.addItem(name)
                self.class_combo.setCurrentText(text)
        self.show_summary()

    def _on_history_changed(self) -> None:
        session = self._session
        present = self.controller.present()
        if present is not None and present.is_empty:
            # Undo follows the order of what was done: the session's step is the newer one.
            present.trail.clear()
            present.future.clear()
        for button, verb, name in (
            (self.undo_button, "Takes back", session.undo_name if session else None),
            (self.redo_button, "Makes again", session.redo_name if session else None),
        ):
            button.setToolTip(f"{verb}: {name}" if name else "Takes back clicks, then objects")

    def _on_answered(self, is_there: bool) -> None:
        if is_there:
            self.show_summary()
            image = self.state.image_layer
            if image is not None:
                self._on_data_bar(image, self.state.segmenter(image).data_bar)

    def _on_data_bar(self, image: Image, first_row: int | None) -> None:
        self.settings.show_data_bar(first_row)
        if first_row is not None:
            # Objects that reach the bar are cut off like those at the sides of the image.
            width = self.state.plane(image).shape[1]
            self.state.session(image).field_of_view = (0, 0, first_row, width)

    def _refresh(self) -> None:
        present = self.controller.present()
        if present is None or present.is_empty:
            self.score.setText("no prompts yet")
            # N begins another object under the brush.
            self.add_button.setEnabled(present is not None and self.tools.current == "brush")
            return
        count = present.prompts.count
        parts = ["1 prompt" if count == 1 else f"{count} prompts"]
        chosen = present.chosen(self.controller.settings.scale)
        waits = self.controller.waits
        if present.answer is None:
            parts.insert(0, "…" if waits else "no mask")
        elif len(chosen) > 1:
            parts.insert(0, f"{len(chosen)} objects")
        elif chosen and np.isfinite(present.answer.masks.scores[chosen[0]]):
            # The model's estimate of an IoU may come out a little above 1.
            score = min(1.0, float(present.answer.masks.scores[chosen[0]]))
            parts.insert(0, f"score {score:.2f}")
        self.score.setText(" · ".join(parts))
        self.add_button.setEnabled(present.answer is not None or waits)

    def show_summary(self) -> None:
        """Say how many objects there are, how much they cover, and how fast the click was."""
        image = self.state.image_layer
        if image is None or self.running:
            return
        try:
            plane = self.state.plane(image)
        except UnsupportedViewError:
            return
        records = [r for r in self.state.session(image).objects if r.plane == plane.index]
        share = sum(record.area for record in records) / (plane.shape[0] * plane.shape[1])
        parts = ["1 object" if len(records) == 1 else f"{len(records)} objects"]
        parts.append(f"{share:.1%} of the image".replace("%", " %"))
        present = self.controller.present()
        if present is not None and present.answer is not None and present.answer.seconds:
            parts.append(f"last click {duration_text(present.answer.seconds)}")
        self.show_result(" · ".join(parts))


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _describe(record: ObjectRecord) -> str:
    """One sentence on a committed object."""
    score = f", score {min(1.0, record.score):.2f}" if np.isfinite(record.score) else ""
    name = f", {record.class_name}" if record.class_name else ""
    return f"Object {record.id}: {record.area} px{score}{name}. U re-opens it."
