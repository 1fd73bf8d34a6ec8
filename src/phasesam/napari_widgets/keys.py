"""Keyboard shortcuts: free in napari's own layers, the same on the canvas and in a dock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QLabel
from superqt import QCollapsible

from phasesam.napari_widgets.dock import folded

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
    Key("delete", "Delete", "Del", "delete the selected objects"),
    Key("toggle_preview", "W", "W", "preview on or off"),
    Key("before_after", "Q", "Q", "show the map before or after"),
    Key("undo", "Control-Z", "Ctrl+Z", "undo the last step"),
    Key("redo", "Control-Shift-Z", "Ctrl+Shift+Z", "redo it"),
)


def bind_keys(dock: Dock, actions: Mapping[str, Callable[[], Any]], *, rank: int = 0) -> None:
    """Bind actions of a dock to their keys, on the canvas and while the dock has the focus.

    napari ignores key bindings in the manifest, so they are bound to the viewer. All docks of
    a viewer share one binding per key: on the canvas the dock of the highest rank that knows
    the action carries it out; while a dock has the focus, that dock comes first. A dock
    that is destroyed leaves the keys to the others. A layer's own bindings come first in
    napari; the keys above are free in all its layers, apart from Ctrl+Z in Labels layers,
    where the layer of the committed objects calls the same undo, and Del in Points and
    Shapes layers.

    Parameters
    ----------
    dock : Dock
        Owner of the shortcuts.
    actions : mapping of str to callable
        From `Key.action` to what is called, without arguments.
    rank : int
        Which dock carries out an action that several know; the last one opened of equals.
    """
    viewer = dock.viewer
    for key in KEYS:
        own = actions.get(key.action)
        shortcut = QShortcut(QKeySequence(key.qt), dock)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(own if own is not None else _presser(viewer, key))
        if own is None:
            continue
        binding = _binding(viewer, key)
        if binding is None:
            binding = _Binding(key)
            viewer.bind_key(key.napari, binding, overwrite=True)
        binding.add(own, rank)
        dock.subscriptions.add(_remover(viewer, binding, own))


class _Binding:
    """What the docks of one viewer do on one key; napari calls it with the viewer."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.__name__ = key.action
        self.__doc__ = f"PhaseSAM: {key.text}."
        self._handlers: list[tuple[int, Callable[[], Any]]] = []

    def __call__(self, _viewer: Any) -> None:
        """Let the dock of the highest rank act."""
        if self._handlers:
            self._handlers[-1][1]()

    def add(self, action: Callable[[], Any], rank: int) -> None:
        """Add what another dock does."""
        self._handlers.append((rank, action))
        self._handlers.sort(key=lambda handler: handler[0])

    def remove(self, action: Callable[[], Any]) -> bool:
        """Forget what a dock does; returns whether nobody is left."""
        self._handlers = [handler for handler in self._handlers if handler[1] is not action]
        return not self._handlers


def _binding(viewer: Any, key: Key) -> _Binding | None:
    """Find the binding in the viewer itself, so that nothing else keeps docks alive."""
    for bound in viewer.keymap.values():
        if isinstance(bound, _Binding) and bound.key == key:
            return bound
    return None


def _presser(viewer: Any, key: Key) -> Callable[[], None]:
    def press() -> None:
        binding = _binding(viewer, key)
        if binding is not None:
            binding(viewer)

    return press


def _remover(viewer: Any, binding: _Binding, action: Callable[[], Any]) -> Callable[[], None]:
    def remove() -> None:
        # The user may have bound the key to something else since.
        if binding.remove(action) and binding in viewer.keymap.values():
            viewer.bind_key(binding.key.napari, None, overwrite=True)

    return remove


def keys_help(actions: Mapping[str, Any]) -> QCollapsible:
    """Make a folded table of the keys that are bound to ``actions``."""
    rows = "".join(
        f"<tr><td><b>{key.qt}</b>&nbsp;&nbsp;</td><td>{key.text}</td></tr>"
        for key in KEYS
        if key.action in actions
    )
    part = folded("Keys")
    part.addWidget(QLabel(f"<table>{rows}</table>"))
    return part
