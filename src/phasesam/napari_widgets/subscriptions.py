"""Every connect has its disconnect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


class Subscriptions:
    """Connections of a widget to things that outlive it; they end when it is destroyed.

    Parameters
    ----------
    owner : QObject
        The widget. After its ``destroyed`` signal no callback is called any more.
    """

    def __init__(self, owner: QObject) -> None:
        self._undo: list[Callable[[], Any]] = []
        owner.destroyed.connect(self.close)

    def connect(self, emitter: Any, callback: Callable[..., Any]) -> None:
        """Connect ``callback`` to a napari, psygnal or Qt signal."""
        emitter.connect(callback)
        self._undo.append(lambda: emitter.disconnect(callback))

    def add(self, undo: Callable[[], Any]) -> None:
        """Call ``undo`` when the widget is destroyed."""
        self._undo.append(undo)

    def close(self) -> None:
        """End all connections."""
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except (RuntimeError, ValueError, TypeError):
                continue  # the other side is gone already
