"""Buttons below the object table: what can be done with the selected objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QMenu, QPushButton, QWidget


@dataclass(frozen=True)
class Action:
    """One button.

    Attributes
    ----------
    key : str
        What `ObjectActionBar.requested` is emitted with.
    title : str
        Its text.
    tooltip : str
        What it does to the picture.
    least, most : int
        How many objects must be selected for it.
    """

    key: str
    title: str
    tooltip: str
    least: int = 1
    most: int = 1_000_000


ACTIONS = (
    Action("delete", "Delete", "Take the selected objects out (Del)."),
    Action("merge", "Merge", "Make one object of the selected ones.", least=2),
    Action("fill", "Fill", "Fill the holes of the selected objects."),
    Action("smooth", "Smooth", "Round the outlines of the selected objects by 2 pixels."),
    Action(
        "reopen",
        "Re-open",
        "Take the object up again in the Prompt dock, to correct it with further clicks (U).",
        most=1,
    ),
)
SPLITS = (
    Action("split_line", "Along a line that I draw", "Draw a line across the object.", most=1),
    Action("split_necks", "At its necks", "Cut the object where it is narrow.", most=1),
)
EXPORTS = (
    Action("csv", "Table (CSV) …", "Measurements of the rows shown, with units.", least=0),
    Action("coco", "Masks (COCO JSON) …", "One annotation per object, RLE.", least=0),
    Action("tiff", "Label image (TIFF) …", "Pixel value = object ID, with pixel size.", least=0),
)


class ObjectActionBar(QWidget):
    """Buttons that are enabled when enough objects are selected."""

    requested = Signal(str)
    """Key of the action."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._limits: list[tuple[Callable[[bool], object], Action]] = []
        self.buttons: dict[str, QPushButton] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, action in enumerate(ACTIONS):
            button = QPushButton(action.title, self)
            button.setToolTip(action.tooltip)
            button.clicked.connect(lambda _=False, key=action.key: self.requested.emit(key))
            self.buttons[action.key] = button
            self._limits.append((button.setEnabled, action))
            # Delete, Merge, Split | Fill, Smooth, Re-open
            grid.addWidget(button, *divmod(place if place < 2 else place + 1, 3))
        self.split_menu = self._add_menu("split", "Split", "Cut one object in two or more.", SPLITS)
        grid.addWidget(self.buttons["split"], 0, 2)
        self.undo = self._add_button("undo", "Undo", "Take back the last edit (Ctrl+Z).")
        self.redo = self._add_button("redo", "Redo", "Make the edit again (Ctrl+Shift+Z).")
        self.export_menu = self._add_menu(
            "export", "Export", "Write the objects to a file.", EXPORTS
        )
        for column, key in enumerate(("undo", "redo", "export")):
            grid.addWidget(self.buttons[key], 2, column)
        self.show_state(0, 0)
        self.show_history(None, None)

    def _add_button(self, key: str, title: str, tooltip: str) -> QPushButton:
        button = QPushButton(title, self)
        button.setToolTip(tooltip)
        button.clicked.connect(lambda: self.requested.emit(key))
        self.buttons[key] = button
        return button

    def _add_menu(self, key: str, title: str, tooltip: str, actions: tuple[Action, ...]) -> QMenu:
        button = QPushButton(title, self)
        button.setToolTip(tooltip)
        menu = QMenu(button)
        menu.setToolTipsVisible(True)
        for action in actions:
            entry = menu.addAction(action.title)
            entry.setToolTip(action.tooltip)
            entry.triggered.connect(lambda _=False, key=action.key: self.requested.emit(key))
        button.setMenu(menu)
        self.buttons[key] = button
        if actions[0].least:
            self._limits.append((button.setEnabled, actions[0]))
        return menu

    def show_state(self, n_selected: int, n_objects: int) -> None:
        """Enable what can be done with so many selected objects."""
        for enable, action in self._limits:
            enable(action.least <= n_selected <= action.most)
        self.buttons["export"].setEnabled(n_objects > 0)

    def show_history(self, undo_name: str | None, redo_name: str | None) -> None:
        """Enable Undo and Redo, and say in the tooltip what they would do."""
        self.undo.setEnabled(undo_name is not None)
        self.redo.setEnabled(redo_name is not None)
        self.undo.setToolTip(f"Undo: {undo_name or 'nothing to undo'} (Ctrl+Z)")
        self.redo.setToolTip(f"Redo: {redo_name or 'nothing to redo'} (Ctrl+Shift+Z)")
