"""Keyboard shortcuts: free in napari's own layers, the same on the canvas and in a dock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QLabel

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock


@dataclass(frozen=True)
class Key:
    """One shortcut.

    Attributes
    ----------
    action : str
        What it is bound to.
    napari : str
        Key in napari's notation.
    qt : str
        Key in Qt's notation, also shown to the user.
    text : str
        What it does.
    """

    action: str
    napari: str
    qt: str
    text: str


KEYS = (
    Key("add", "N", "N", "add the object"),
    Key("clear", "K", "K", "clear the prompts"),
    Key("next_scale", "G", "G", "next scale"),
    Key("reopen", "U", "U", "re-open the selected object"),
    Key("next_object", "J", "J", "select the next object"),
    Key("previous_object", "H", "H", "select the previous object"),
    Key("toggle_preview", "W", "W", "preview on or off"),
    Key("undo", "Control-Z", "Ctrl+Z", "undo clicks, then objects"),
    Key("redo", "Control-Shift-Z", "Ctrl+Shift+Z", "redo"),
)


def bind_keys(dock: Dock, actions: Mapping[str, Callable[[], Any]]) -> None:
    """Bind actions of a dock to their keys, on the canvas and while the dock has the focus.

    napari ignores key bindings in the manifest, so they are bound to the viewer, and taken
    away when the dock is destroyed. A layer's own bindings come first in napari; the keys
    above are free in all its layers, apart from Ctrl+Z in Labels layers, where the layer of
    the committed objects calls the same undo.

    Parameters
    ----------
    dock : Dock
        Owner of the shortcuts.
    actions : mapping of str to callable
        From `Key.action` to what is called, without arguments.
    """
    viewer = dock.viewer
    for key in KEYS:
        action = actions.get(key.action)
        if action is None:
            continue
        shortcut = QShortcut(QKeySequence(key.qt), dock)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(action)
        bound = _ignoring_viewer(action)
        viewer.bind_key(key.napari, bound, overwrite=True)
        dock.subscriptions.add(_unbinder(viewer, key.napari, bound))


def _ignoring_viewer(action: Callable[[], Any]) -> Callable[[Any], None]:
    def press(_viewer: Any) -> None:
        action()

    return press


def _unbinder(viewer: Any, key: str, bound: Callable[[Any], None]) -> Callable[[], None]:
    def unbind() -> None:
        # A second dock of the same kind may have bound the key since.
        if bound in viewer.keymap.values():
            viewer.bind_key(key, None, overwrite=True)

    return unbind


def keys_help(actions: Mapping[str, Any]) -> QLabel:
    """Make a small table of the keys that are bound to ``actions``."""
    rows = "".join(
        f"<tr><td><b>{key.qt}</b>&nbsp;&nbsp;</td><td>{key.text}</td></tr>"
        for key in KEYS
        if key.action in actions
    )
    return QLabel(f"<table>{rows}</table>")
